/**
 * Images in memory: samples interleaved by pixel, row by row (HWC), and their conversion to and
 * from the float RGB that networks see.
 */
import { expected, Spr2qError } from "../errors.ts";

/** Grey, grey + alpha, RGB, RGBA; 8 or 16 bits a sample. `data.length` = height * width * channels. */
export interface RasterImage {
  /** Columns, in pixels. */
  readonly width: number;
  /** Rows, in pixels. */
  readonly height: number;
  /** Samples of a pixel: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (straight, not premultiplied). */
  readonly channels: 1 | 2 | 3 | 4;
  /** Bits of a sample. */
  readonly depth: 8 | 16;
  /** Samples from 0 to 2^depth - 1, interleaved by pixel, row by row from the top. */
  readonly data: Uint8Array | Uint16Array;
}

/** Throws ERR_IMAGE unless size, depth and data of `image` belong together. */
export function checkRaster(image: RasterImage, name = "image"): void {
  const { width, height, channels, depth, data } = image;
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
    throw expected("ERR_IMAGE", `${name}: size`, "sides of 1 pixel or more", `${width}x${height}`);
  }
  if (![1, 2, 3, 4].includes(channels) || (depth !== 8 && depth !== 16)) {
    const got = `${channels} channels of ${depth} bits`;
    throw expected("ERR_IMAGE", name, "1 to 4 channels of 8 or 16 bits", got);
  }
  const fits = depth === 8 ? data instanceof Uint8Array : data instanceof Uint16Array;
  if (!fits || data.length !== width * height * channels) {
    const wanted = `${width * height * channels} samples in a Uint${depth}Array`;
    throw expected(
      "ERR_IMAGE",
      `${name}: data`,
      wanted,
      `${data.length} (${data.constructor.name})`,
    );
  }
}

/** Position of each of R, G, B among the channels: grey serves for all three. */
function rgbOffsets(channels: number): readonly [number, number, number] {
  return channels < 3 ? [0, 0, 0] : [0, 1, 2];
}

/**
 * A function that puts float RGB in [0, 1] of pixel `at` (counted row by row) into `into` from `to`
 * on. Grey is replicated, alpha dropped.
 */
export function rgbReader(
  image: RasterImage,
): (at: number, into: Float32Array, to: number) => void {
  const { channels, data } = image;
  const peak = image.depth === 8 ? 255 : 65535;
  const [r, g, b] = rgbOffsets(channels);
  return (at, into, to) => {
    const from = at * channels;
    into[to] = data[from + r] / peak;
    into[to + 1] = data[from + g] / peak;
    into[to + 2] = data[from + b] / peak;
  };
}

/** Float RGB in [0, 1], (height, width, 3). Grey is replicated, alpha dropped. */
export function toRgbFloat(image: RasterImage): Float32Array {
  checkRaster(image);
  const out = new Float32Array(image.width * image.height * 3);
  const read = rgbReader(image);
  for (let at = 0, to = 0; to < out.length; at++, to += 3) read(at, out, to);
  return out;
}

/** Nearest integer, ties to the even one. */
export function roundHalfEven(value: number): number {
  const rounded = Math.round(value); // ties go up
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * RGB image from floats in [0, 1], (height, width, 3): clamped, scaled in float32, rounded half to
 * even, as the evaluation protocol does. Throws ERR_IMAGE for a NaN, which no pixel can show.
 */
export function fromRgbFloat(
  data: Float32Array,
  width: number,
  height: number,
  depth: 8 | 16,
): RasterImage {
  if (data.length !== width * height * 3) {
    throw expected("ERR_SHAPE", "RGB data", `${width * height * 3} floats`, `${data.length}`);
  }
  const peak = depth === 8 ? 255 : 65535;
  const out = depth === 8 ? new Uint8Array(data.length) : new Uint16Array(data.length);
  for (let i = 0; i < out.length; i++) {
    const clamped = Math.min(Math.max(data[i], 0), 1); // a NaN stays one
    if (Number.isNaN(clamped)) throw new Spr2qError("ERR_IMAGE", `sample ${i} is NaN`);
    out[i] = roundHalfEven(Math.fround(clamped * peak));
  }
  return { width, height, channels: 3, depth, data: out };
}

/** 8-bit RGB: grey replicated, alpha dropped, 16 bits scaled by 255/65535 and rounded. */
export function toRgb8(image: RasterImage): RasterImage & { readonly data: Uint8Array } {
  checkRaster(image);
  const { width, height, channels, depth, data } = image;
  if (channels === 3 && depth === 8) return { ...image, data: data as Uint8Array };
  const [r, g, b] = rgbOffsets(channels);
  const scale = depth === 8 ? 1 : 255 / 65535;
  const out = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < out.length; from += channels, to += 3) {
    out[to] = Math.round(data[from + r] * scale);
    out[to + 1] = Math.round(data[from + g] * scale);
    out[to + 2] = Math.round(data[from + b] * scale);
  }
  return { width, height, channels: 3, depth: 8, data: out };
}

/** The top-left `width` x `height` pixels of an image (a copy, unless that is all of it). */
export function cropRaster(
  image: RasterImage,
  width: number,
  height: number,
  x = 0,
  y = 0,
): RasterImage {
  checkRaster(image);
  if (width === image.width && height === image.height) return image;
  const inside = x >= 0 && y >= 0 && x + width <= image.width && y + height <= image.height;
  if (!(width >= 1 && height >= 1 && inside)) {
    const wanted = `at most ${image.width}x${image.height} pixels`;
    const got = x || y ? `${width}x${height} at (${x}, ${y})` : `${width}x${height}`;
    throw expected("ERR_IMAGE", "crop", wanted, got);
  }
  const row = width * image.channels;
  const data = image.depth === 8 ? new Uint8Array(row * height) : new Uint16Array(row * height);
  for (let line = 0; line < height; line++) {
    const from = ((y + line) * image.width + x) * image.channels;
    data.set(image.data.subarray(from, from + row), line * row);
  }
  return { ...image, width, height, data };
}

/** Crops to sides divisible by `scale`, dropping rows below and columns at the right. */
export function modcrop(image: RasterImage, scale: number): RasterImage {
  const { width, height } = image;
  return cropRaster(image, width - (width % scale), height - (height % scale));
}
