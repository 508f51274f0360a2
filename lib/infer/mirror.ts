/**
 * Where tiles get their pixels: images of floats or of samples, continued below and to the right by
 * mirroring. Nothing is copied but what a tile asks for, so an image is never held twice.
 */
import type { F32, I32 } from "../binding.ts";
import { type RasterImage, rgbReader } from "../io/raster.ts";

/** A float image (height, width, 3) in 0..1, clamped nowhere. */
export interface FloatImage {
  readonly data: F32;
  readonly width: number;
  readonly height: number;
}

/** Pixels by their place. */
export interface PixelSource {
  readonly width: number;
  readonly height: number;
  /** Puts RGB in 0..1 of the pixels (xs[j], ys[i]) into `into` (ys.length, xs.length, 3). */
  read(xs: I32, ys: I32, into: F32): void;
}

/** The pixels of a float image. */
export function floatPixels({ data, width, height }: FloatImage): PixelSource {
  const read = (xs: I32, ys: I32, into: F32): void => {
    let to = 0;
    for (const y of ys) {
      for (const x of xs) {
        const from = (y * width + x) * 3;
        into[to++] = data[from];
        into[to++] = data[from + 1];
        into[to++] = data[from + 2];
      }
    }
  };
  return { width, height, read };
}

/** The colours of an image of samples; grey serves for all three, alpha is left out. */
export function rasterPixels(image: RasterImage): PixelSource {
  const { width, height } = image;
  const reader = rgbReader(image);
  const read = (xs: I32, ys: I32, into: F32): void => {
    let to = 0;
    for (const y of ys) {
      for (const x of xs) {
        reader(y * width + x, into, to);
        to += 3;
      }
    }
  };
  return { width, height, read };
}

/** `source` continued to width x height, the border pixel twice, to and fro for long ways. */
export function mirrored(source: PixelSource, width: number, height: number): PixelSource {
  if (width === source.width && height === source.height) return source;
  const mirror = (length: number) => (i: number) => {
    const at = i % (2 * length);
    return at < length ? at : 2 * length - 1 - at;
  };
  const [x, y] = [mirror(source.width), mirror(source.height)];
  return { width, height, read: (xs, ys, into) => source.read(xs.map(x), ys.map(y), into) };
}
