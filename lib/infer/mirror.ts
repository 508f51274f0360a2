/** Images continued below and to the right by mirroring, and cut back to what they were. */
import type { F32 } from "../binding.ts";

/** A float image (height, width, 3) in 0..1, clamped nowhere. */
export interface FloatImage {
  readonly data: F32;
  readonly width: number;
  readonly height: number;
}

/** `image` continued to width x height, the border pixel twice, to and fro for long ways. */
export function mirrorTo(image: FloatImage, width: number, height: number): FloatImage {
  if (width === image.width && height === image.height) return image;
  const mirror = (i: number, length: number): number => {
    const at = i % (2 * length);
    return at < length ? at : 2 * length - 1 - at;
  };
  const data = new Float32Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (mirror(y, image.height) * image.width + mirror(x, image.width)) * 3;
      data.set(image.data.subarray(from, from + 3), (y * width + x) * 3);
    }
  }
  return { data, width, height };
}

/** The top-left width x height pixels. */
export function cropTo(image: FloatImage, width: number, height: number): FloatImage {
  if (width === image.width && height === image.height) return image;
  const data = new Float32Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = y * image.width * 3;
    data.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return { data, width, height };
}
