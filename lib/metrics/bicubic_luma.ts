/**
 * The bicubic row of published tables (33.66 dB on Set5 x2, 28.42 x4). Those figures were made on
 * luma alone: the 8-bit Y of the HR image is shrunk and enlarged in floats and rounded once at the
 * end, while networks start from the colour LR file, which was rounded after each axis.
 */
import type { RasterImage } from "../io/raster.ts";
import { lumaPlane } from "./color.ts";
import { bicubicResizeFloat } from "./resize.ts";

/** PSNR in dB of an 8-bit image (sides multiples of `scale`), `scale` border pixels left out. */
export function bicubicLumaPsnr(hr: RasterImage, scale: number): number {
  const { width, height, data } = lumaPlane(hr, 0);
  const luma = Float32Array.from(data, (y) => Math.round(y));
  const low = bicubicResizeFloat(luma, width, height, 1, 1 / scale);
  const back = bicubicResizeFloat(low.data, low.width, low.height, 1, scale);
  let sum = 0;
  for (let y = scale; y < height - scale; y++) {
    for (let x = scale; x < width - scale; x++) {
      const value = Math.round(back.data[y * back.width + x]);
      sum += (Math.min(255, Math.max(0, value)) - luma[y * width + x]) ** 2;
    }
  }
  const mean = sum / ((width - 2 * scale) * (height - 2 * scale));
  return 20 * Math.log10(255 / Math.sqrt(mean));
}
