/**
 * JPEG, WebP and AVIF through sharp, an optional package: it is loaded when the first such image
 * comes, and where it is missing ERR_NEED_SHARP says how to add it. Pixels are turned upright (EXIF)
 * and colours brought to sRGB by sharp; grey stays grey, alpha stays, animations are refused.
 */
import { expected, Spr2qError } from "../errors.ts";
import type { ImageKind } from "./image_kind.ts";
import type { DecodeOptions, ImageShape } from "./png.ts";
import { checkRaster, type RasterImage } from "./raster.ts";

/** Version of sharp that its optional peer dependency asks for. */
export const SHARP_RANGE = ">=0.33";

/** The part of sharp that is used, so that no type of a missing package is needed. */
interface Sharp {
  metadata(): Promise<Metadata>;
  rotate(): Sharp;
  toColourspace(space: string): Sharp;
  ensureAlpha(): Sharp;
  removeAlpha(): Sharp;
  extractChannel(channel: number): Sharp;
  raw(options?: { depth: string }): Sharp;
  jpeg(options: object): Sharp;
  webp(options: object): Sharp;
  avif(options: object): Sharp;
  toBuffer(): Promise<Buffer>;
  toBuffer(options: { resolveWithObject: true }): Promise<{ data: Buffer; info: Info }>;
}
interface Metadata {
  readonly width: number;
  readonly height: number;
  readonly space?: string;
  readonly depth?: string;
  readonly hasAlpha?: boolean;
  readonly orientation?: number;
  readonly pages?: number;
}
interface Info {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}
type SharpFactory = (input: Uint8Array | string, options?: object) => Sharp;

/** sharp itself; ERR_NEED_SHARP, naming `what` asked for it, where it cannot be loaded. */
async function openSharp(what: string): Promise<SharpFactory> {
  try {
    const name = "sharp"; // a variable, so that compilers and bundlers do not insist on it
    return ((await import(name)) as { default: SharpFactory }).default;
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND";
    const got = missing ? "none" : `one that does not load (${(cause as Error).message})`;
    const fix = "Add it (npm install sharp), or convert the image to PNG.";
    const wanted = `the optional package sharp ${SHARP_RANGE}`;
    const error = expected("ERR_NEED_SHARP", what, wanted, got, fix);
    error.cause = cause;
    throw error;
  }
}

/** Names of the kinds as people write them. */
const SPOKEN = { png: "PNG", jpeg: "JPEG", webp: "WebP", avif: "AVIF" } as const;

/**
 * Size and kind of a JPEG, WebP or AVIF image, upright, from its header. Throws ERR_NEED_SHARP, and
 * ERR_IMAGE for what is damaged, animated, or has more samples than `options.maxSamples`.
 */
export async function outlineWithSharp(
  input: Uint8Array | string,
  kind: ImageKind,
  name: string,
  maxSamples: number,
): Promise<ImageShape> {
  const sharp = await openSharp(`${name} (${SPOKEN[kind]})`);
  const found = await opening(name, kind, sharp(input, { limitInputPixels: false }).metadata());
  if ((found.pages ?? 1) > 1) {
    const fix = "Take one of them out first.";
    throw expected("ERR_IMAGE", name, "one picture", `an animation of ${found.pages}`, fix);
  }
  const turned = (found.orientation ?? 1) >= 5;
  const [width, height] = turned ? [found.height, found.width] : [found.width, found.height];
  const colours = found.space === "b-w" || found.space === "grey16" ? 1 : 3;
  const channels = (colours + (found.hasAlpha ? 1 : 0)) as ImageShape["channels"];
  const samples = width * height * channels;
  if (samples > maxSamples) {
    const got = `${width}x${height}, which is ${samples} samples`;
    const fix = "Cut it into parts first.";
    throw expected("ERR_IMAGE", `${name}: size`, `at most ${maxSamples} samples`, got, fix);
  }
  return { width, height, channels, depth: found.depth === "ushort" ? 16 : 8 };
}

/** Decodes a JPEG, WebP or AVIF image. Throws as {@link outlineWithSharp}. */
export async function decodeWithSharp(
  bytes: Uint8Array,
  kind: ImageKind,
  name: string,
  options: Required<DecodeOptions>,
): Promise<RasterImage> {
  const shape = await outlineWithSharp(bytes, kind, name, options.maxSamples);
  const sharp = await openSharp(name);
  const { channels, depth } = shape;
  const limitInputPixels = shape.width * shape.height;
  const upright = sharp(bytes, { limitInputPixels, failOn: "error" }).rotate();
  const grey = channels < 3;
  const space = depth === 16 ? (grey ? "grey16" : "rgb16") : grey ? "b-w" : "srgb";
  const coloured = upright.toColourspace(space);
  const whole = channels % 2 === 0 ? coloured.ensureAlpha() : coloured.removeAlpha();
  const pixels = whole.raw({ depth: depth === 16 ? "ushort" : "uchar" });
  const { data, info } = await opening(name, kind, pixels.toBuffer({ resolveWithObject: true }));
  // A copy: sharp's memory is not this thread's to hand on to another.
  const bytesOut = new Uint8Array(data);
  const image = {
    width: info.width,
    height: info.height,
    channels: info.channels as RasterImage["channels"],
    depth,
    data: depth === 8 ? bytesOut : new Uint16Array(bytesOut.buffer),
  };
  checkRaster(image, name);
  return image;
}

/**
 * Encodes an image as JPEG, WebP or AVIF of `quality` 1 to 100. Throws ERR_NEED_SHARP, and ERR_IMAGE
 * where the kind cannot hold the image: 16 bits a sample in any of them, alpha in JPEG.
 */
export async function encodeWithSharp(
  image: RasterImage,
  kind: Exclude<ImageKind, "png">,
  quality: number,
): Promise<Uint8Array> {
  checkRaster(image);
  checkHolds(image, kind);
  const sharp = await openSharp(`writing ${SPOKEN[kind]}`);
  const { width, height, channels, data } = image;
  const pixels = sharp(data as Uint8Array, { raw: { width, height, channels } });
  const space = pixels.toColourspace(channels < 3 ? "b-w" : "srgb");
  return space[kind]({ quality }).toBuffer();
}

/** ERR_IMAGE where a file of this kind would lose part of an image of this shape. */
export function checkHolds(shape: Omit<ImageShape, "width" | "height">, kind: ImageKind): void {
  if (kind === "png") return;
  const fix = "Write a PNG.";
  const what = `${SPOKEN[kind]} result`;
  if (shape.depth === 16) {
    throw expected("ERR_IMAGE", what, "8 bits a sample, as it holds no more", "16", fix);
  }
  if (kind === "jpeg" && shape.channels % 2 === 0) {
    throw expected("ERR_IMAGE", what, "no alpha, as it holds none", "alpha", fix);
  }
}

/** What sharp says about a damaged file becomes ERR_IMAGE. */
async function opening<T>(name: string, kind: ImageKind, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    const reason = (cause instanceof Error ? cause.message : String(cause)).trim().split("\n")[0];
    throw new Spr2qError("ERR_IMAGE", `${name}: damaged ${SPOKEN[kind]}: ${reason}`, { cause });
  }
}
