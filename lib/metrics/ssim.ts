/** Structural similarity on the Y channel (Wang et al. 2004, as the benchmarks compute it). */
import { expected } from "../errors.ts";
import type { RasterImage } from "../io/raster.ts";
import { checkSameSize, lumaPlane, type Plane } from "./color.ts";

/** Side of the Gaussian window, in pixels. */
const WINDOW = 11;
/** Standard deviation of the Gaussian window, in pixels. */
const SIGMA = 1.5;
const C1 = (0.01 * 255) ** 2;
const C2 = (0.03 * 255) ** 2;

const TAPS: Float64Array = gaussianTaps();

function gaussianTaps(): Float64Array {
  const center = (WINDOW - 1) / 2;
  const taps = Float64Array.from({ length: WINDOW }, (_, i) =>
    Math.exp(-((i - center) ** 2) / (2 * SIGMA * SIGMA)),
  );
  const sum = taps.reduce((a, b) => a + b, 0);
  return taps.map((tap) => tap / sum);
}

/**
 * Mean SSIM between the Y planes of two 8-bit images of one size, without `border` pixels on every
 * side. Moments are taken over the positions where the 11 x 11 window lies inside ("valid").
 * Throws ERR_SHAPE where the window does not fit.
 */
export function ssimY(a: RasterImage, b: RasterImage, border: number): number {
  checkSameSize(a, b);
  const x = lumaPlane(a, border);
  const y = lumaPlane(b, border);
  if (x.width < WINDOW || x.height < WINDOW) {
    const wanted = `${WINDOW} pixels or more each way inside the border of ${border}`;
    throw expected("ERR_SHAPE", "SSIM", wanted, `${x.width}x${x.height}`);
  }
  const meanX = blur(x, x.data);
  const meanY = blur(x, y.data);
  const meanXX = blur(x, product(x.data, x.data));
  const meanYY = blur(x, product(y.data, y.data));
  const meanXY = blur(x, product(x.data, y.data));
  let sum = 0;
  for (let i = 0; i < meanX.length; i++) {
    const xy = meanX[i] * meanY[i];
    const squares = meanX[i] ** 2 + meanY[i] ** 2;
    const covariance = meanXY[i] - xy;
    const variances = meanXX[i] + meanYY[i] - squares;
    sum += ((2 * xy + C1) * (2 * covariance + C2)) / ((squares + C1) * (variances + C2));
  }
  return sum / meanX.length;
}

function product(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value * b[i]);
}

/** Separable Gaussian over the valid region: (height, width) -> (height - 10, width - 10). */
function blur(size: Plane, data: Float64Array): Float64Array {
  const { width, height } = size;
  const outWidth = width - WINDOW + 1;
  const outHeight = height - WINDOW + 1;
  const rows = new Float64Array(height * outWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < outWidth; x++) {
      let sum = 0;
      for (let k = 0; k < WINDOW; k++) sum += TAPS[k] * data[y * width + x + k];
      rows[y * outWidth + x] = sum;
    }
  }
  const out = new Float64Array(outHeight * outWidth);
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++) {
      let sum = 0;
      for (let k = 0; k < WINDOW; k++) sum += TAPS[k] * rows[(y + k) * outWidth + x];
      out[y * outWidth + x] = sum;
    }
  }
  return out;
}
