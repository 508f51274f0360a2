/**
 * PNG files to and from {@link RasterImage}: depth in = depth out, 16 bits exactly. A palette is
 * expanded to RGB, a transparent colour becomes an alpha channel, fewer than 8 bits become 8.
 * Colour profiles and gamma are left aside: super-resolution keeps whatever the samples mean.
 */
import { readFile } from "node:fs/promises";
import { PNG } from "pngjs";
import { Spr2qError } from "../errors.ts";
import { ioError } from "./files.ts";
import {
  checkHeader,
  checkPng,
  COLOR_TYPE_OF_CHANNELS,
  type Header,
  type PngContainer,
} from "./png_container.ts";
import { checkRaster, type RasterImage } from "./raster.ts";

export { fromRgbFloat, type RasterImage, toRgbFloat } from "./raster.ts";

/** Samples an image may have unless told otherwise: a 9500 x 9500 RGB photograph. */
export const DEFAULT_MAX_SAMPLES: number = 2 ** 28;

/** Limits for a reader of images. */
export interface DecodeOptions {
  /** Samples (width x height x channels) beyond which an image is refused before decoding. */
  readonly maxSamples?: number;
}

/** Reads a PNG file. Throws ERR_IO where it cannot be opened, else as {@link decodePng}. */
export async function readPng(path: string, options: DecodeOptions = {}): Promise<RasterImage> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw ioError("read the image", path, cause);
  }
  return decodePng(bytes, path, options);
}

/** Size and kind of an image. */
export type ImageShape = Omit<RasterImage, "data">;

/**
 * Size and kind of the image in a PNG whose first HEADER_END bytes (more may follow) are `head`. The
 * channels leave out the alpha of a transparent colour, which only the whole file shows. Throws
 * ERR_IMAGE as {@link decodePng}.
 */
export function outlinePng(
  head: Uint8Array,
  name: string,
  options: DecodeOptions = {},
): ImageShape {
  const header = checkHeader(head, name, options.maxSamples ?? DEFAULT_MAX_SAMPLES);
  const { width, height } = header;
  const depth = header.bitDepth === 16 ? 16 : 8;
  return { width, height, channels: channelsOf({ ...header, transparency: null }), depth };
}

/**
 * Bytes that reading and decoding a PNG of this kind hold at once, the image included: the file and
 * its joined chunks (hardly more than the samples), the rows inflated twice, pngjs' four channels
 * twice, and the image. What is garbage of it may stay for a while.
 */
export function decodeBytes({ width, height, channels, depth }: ImageShape): number {
  return width * height * (depth / 8) * (2 * channels + 2 * channels + 2 * 4 + channels);
}

/**
 * Decodes a PNG. Throws ERR_IMAGE, naming `name`, for anything damaged, cut short, of zero size, or
 * larger than `options.maxSamples`.
 */
export function decodePng(
  bytes: Uint8Array,
  name: string,
  options: DecodeOptions = {},
): RasterImage {
  const container = checkPng(bytes, name, options.maxSamples ?? DEFAULT_MAX_SAMPLES);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, container.size);
  let rgba: Uint8Array | Uint16Array;
  try {
    rgba = PNG.sync.read(buffer, { skipRescale: container.bitDepth === 16 }).data;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Spr2qError("ERR_IMAGE", `${name}: damaged PNG: ${reason}`, { cause });
  }
  restoreKeyColor(rgba, container);
  return pickChannels(rgba, container);
}

/** Channels of the image that a PNG of this colour type becomes. */
function channelsOf(container: Header & Pick<PngContainer, "transparency">): 1 | 2 | 3 | 4 {
  const { colorType, transparency } = container;
  if (colorType === 0) return transparency ? 2 : 1;
  if (colorType === 4) return 2;
  if (colorType === 6) return 4;
  return transparency ? 4 : 3;
}

/**
 * pngjs blackens the pixels of the transparent colour; that would show as a dark fringe once they
 * are blended by an upscaler, so they get their colour back.
 */
function restoreKeyColor(rgba: Uint8Array | Uint16Array, container: PngContainer): void {
  const { colorType, transparency, bitDepth } = container;
  if (!transparency || (colorType !== 0 && colorType !== 2)) return;
  const scale = bitDepth < 8 ? 255 / (2 ** bitDepth - 1) : 1;
  const key = [0, 1, 2].map((i) => transparency.readUInt16BE(colorType === 0 ? 0 : 2 * i) * scale);
  for (let at = 0; at < rgba.length; at += 4) {
    if (rgba[at + 3] === 0) rgba.set(key, at);
  }
}

/** Keeps of pngjs' four channels those that the file declares. */
function pickChannels(rgba: Uint8Array | Uint16Array, container: PngContainer): RasterImage {
  const { width, height } = container;
  const channels = channelsOf(container);
  const depth = container.bitDepth === 16 ? 16 : 8;
  const count = width * height * channels;
  const data = depth === 8 ? new Uint8Array(count) : new Uint16Array(count);
  const last = channels % 2 === 0 ? 3 : channels - 1; // alpha is pngjs' fourth
  for (let from = 0, to = 0; to < count; from += 4) {
    for (let c = 0; c < channels - 1; c++) data[to++] = rgba[from + c];
    data[to++] = rgba[from + last];
  }
  return { width, height, channels, depth, data };
}

/** Encodes an image as a PNG of the same channels and depth. Throws ERR_IMAGE for a malformed one. */
export function encodePng(image: RasterImage): Uint8Array {
  checkRaster(image);
  const { width, height, channels, depth } = image;
  // pngjs reads 16-bit samples from the start of the array's buffer, so they must lie there.
  const data = depth === 16 ? image.data.slice() : image.data;
  const png = { width, height, data, gamma: 0 } as unknown as PNG;
  const colorType = COLOR_TYPE_OF_CHANNELS[channels];
  return PNG.sync.write(png, {
    bitDepth: depth,
    colorType,
    inputColorType: colorType,
    inputHasAlpha: channels % 2 === 0,
  });
}
