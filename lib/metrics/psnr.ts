/** Peak signal-to-noise ratio on the Y channel. */
import type { RasterImage } from "../io/raster.ts";
import { checkSameSize, lumaPlane } from "./color.ts";

/**
 * 20 log10(255 / sqrt(MSE)) in dB between the Y planes of two 8-bit images of one size, without
 * `border` pixels on every side (the benchmarks cut off as many as the scale). Infinity where the
 * planes are equal.
 */
export function psnrY(a: RasterImage, b: RasterImage, border: number): number {
  checkSameSize(a, b);
  const first = lumaPlane(a, border).data;
  const second = lumaPlane(b, border).data;
  let sum = 0;
  for (let i = 0; i < first.length; i++) sum += (first[i] - second[i]) ** 2;
  return 20 * Math.log10(255 / Math.sqrt(sum / first.length));
}
