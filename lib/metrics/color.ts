/**
 * Luma as the super-resolution benchmarks define it: MATLAB's rgb2ycbcr (BT.601, studio range
 * 16..235), not rounded. Metrics take 8-bit images and work in double precision.
 */
import { expected } from "../errors.ts";
import { checkRaster, type RasterImage } from "../io/raster.ts";

/** One plane of doubles, row by row. */
export interface Plane {
  readonly width: number;
  readonly height: number;
  readonly data: Float64Array;
}

/**
 * Y of an 8-bit image after `border` pixels are cut off on every side:
 * Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255. Grey counts as R = G = B; alpha is ignored.
 * Throws ERR_IMAGE for a 16-bit image, ERR_SHAPE where the border leaves nothing.
 */
export function lumaPlane(image: RasterImage, border: number): Plane {
  checkRaster(image);
  const { channels, data } = image;
  if (image.depth !== 8) {
    throw expected("ERR_IMAGE", "metric", "an 8-bit image", "16 bits", "Convert it by toRgb8.");
  }
  const width = image.width - 2 * border;
  const height = image.height - 2 * border;
  if (!Number.isInteger(border) || border < 0 || width < 1 || height < 1) {
    const got = `${image.width}x${image.height}`;
    throw expected("ERR_SHAPE", "metric", `an image larger than two borders of ${border}`, got);
  }
  const [g, b] = channels < 3 ? [0, 0] : [1, 2];
  const out = new Float64Array(width * height);
  for (let y = 0, to = 0; y < height; y++) {
    let at = ((y + border) * image.width + border) * channels;
    for (let x = 0; x < width; x++, at += channels) {
      out[to++] = 16 + (65.481 * data[at] + 128.553 * data[at + g] + 24.966 * data[at + b]) / 255;
    }
  }
  return { width, height, data: out };
}

/** Throws ERR_SHAPE unless both images have the same size. */
export function checkSameSize(a: RasterImage, b: RasterImage): void {
  if (a.width === b.width && a.height === b.height) return;
  const size = (image: RasterImage) => `${image.width}x${image.height}`;
  throw expected("ERR_SHAPE", "metric", `two images of ${size(a)}`, size(b));
}
