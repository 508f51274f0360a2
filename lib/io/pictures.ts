/**
 * Image files of any kind to {@link RasterImage}: PNG by this package alone (png.ts), JPEG, WebP and
 * AVIF through sharp where it is installed (sharp.ts). The kind is told by the bytes.
 */
import { open, readFile, stat } from "node:fs/promises";
import { expected, type Spr2qError } from "../errors.ts";
import { ioError } from "./files.ts";
import { imageKind, type ImageKind, KIND_BYTES } from "./image_kind.ts";
import {
  type DecodeOptions,
  DEFAULT_MAX_SAMPLES,
  decodePng,
  type ImageShape,
  outlinePng,
} from "./png.ts";
import { HEADER_END } from "./png_container.ts";
import type { RasterImage } from "./raster.ts";
import { decodeWithSharp, outlineWithSharp } from "./sharp.ts";

/** Bytes from the start of a file that tell its kind, and for a PNG its size. */
export const HEAD_BYTES: number = Math.max(KIND_BYTES, HEADER_END);

/** ERR_IMAGE for a file of no kind known here. */
export function unknownKind(name: string, empty: boolean): Spr2qError {
  const got = empty ? "an empty file" : "another";
  return expected("ERR_IMAGE", name, "a PNG, JPEG, WebP or AVIF image", got);
}

/** Kind of the file that begins with `head`; ERR_IMAGE, naming `name`, for any other. */
export function requireKind(head: Uint8Array, name: string): ImageKind {
  const kind = imageKind(head);
  if (kind === null) throw unknownKind(name, head.length === 0);
  return kind;
}

/**
 * Size and kind of the image in a file, from its header alone; null for what is no regular file and
 * can be read but once. Throws ERR_IO, ERR_IMAGE and, for other kinds than PNG, ERR_NEED_SHARP.
 */
export async function outlineImage(
  path: string,
  options: DecodeOptions = {},
): Promise<ImageShape | null> {
  const head = Buffer.alloc(HEAD_BYTES);
  let got = 0;
  try {
    if (!(await stat(path)).isFile()) return null;
    const file = await open(path, "r");
    try {
      got = (await file.read(head, 0, head.length, 0)).bytesRead;
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw ioError("read the image", path, cause);
  }
  const begin = head.subarray(0, got);
  const maxSamples = options.maxSamples ?? DEFAULT_MAX_SAMPLES;
  const kind = requireKind(begin, path);
  if (kind === "png") return outlinePng(begin, path, { maxSamples });
  return outlineWithSharp(path, kind, path, maxSamples);
}

/** Size and kind of the image in `bytes`, from its header. Throws as outlineImage(). */
export async function outlineBytes(
  bytes: Uint8Array,
  name: string,
  options: DecodeOptions = {},
): Promise<ImageShape> {
  const maxSamples = options.maxSamples ?? DEFAULT_MAX_SAMPLES;
  const kind = requireKind(bytes, name);
  if (kind === "png") return outlinePng(bytes, name, { maxSamples });
  return outlineWithSharp(bytes, kind, name, maxSamples);
}

/** Decodes an image of any kind. Throws ERR_IMAGE as `decodePng` does, and ERR_NEED_SHARP. */
export async function decodeImage(
  bytes: Uint8Array,
  name: string,
  options: DecodeOptions = {},
): Promise<RasterImage> {
  const kind = requireKind(bytes, name);
  if (kind === "png") return decodePng(bytes, name, options);
  const maxSamples = options.maxSamples ?? DEFAULT_MAX_SAMPLES;
  return decodeWithSharp(bytes, kind, name, { maxSamples });
}

/** Reads an image file of any kind. Throws ERR_IO where it cannot be read, else as {@link decodeImage}. */
export async function readImage(path: string, options: DecodeOptions = {}): Promise<RasterImage> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw ioError("read the image", path, cause);
  }
  return decodeImage(bytes, path, options);
}
