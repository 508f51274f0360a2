/**
 * MATLAB's imresize with the bicubic kernel (Keys, a = -0.5) and antialiasing on: the filter that
 * made the low-resolution images of every super-resolution benchmark. Height first, then width.
 *
 * Output index o (from 1) lies at input coordinate u = o/f + (1 - 1/f)/2. When shrinking, the
 * kernel is stretched by 1/f; each row of weights is normalised; borders are mirrored (half-sample
 * symmetric). On 8-bit images MATLAB rounds and clips after each axis.
 */
import { expected } from "../errors.ts";

/** A resized image, samples interleaved by pixel. */
export interface Resized<T> {
  readonly data: T;
  readonly width: number;
  readonly height: number;
}

/** Weights of one axis: output i = sum over k of weights[i * taps + k] * input[index[i * taps + k]]. */
interface Axis {
  readonly taps: number;
  readonly index: Int32Array;
  readonly weights: Float64Array;
}

/** Slack that keeps ceil(length * factor) from counting a rounding error as a pixel. */
const CEIL_SLACK = 1e-9;

/** Keys' kernel at distance x. */
export function cubic(x: number): number {
  const a = Math.abs(x);
  if (a <= 1) return (1.5 * a - 2.5) * a * a + 1;
  if (a <= 2) return ((-0.5 * a + 2.5) * a - 4) * a + 2;
  return 0;
}

function axisWeights(length: number, outLength: number, factor: number): Axis {
  const shrink = Math.min(factor, 1);
  const reach = 4 / shrink; // kernel width, in input pixels
  const taps = Math.ceil(reach) + 2;
  const index = new Int32Array(outLength * taps);
  const weights = new Float64Array(outLength * taps);
  for (let o = 0; o < outLength; o++) {
    const u = (o + 1) / factor + 0.5 * (1 - 1 / factor);
    const left = Math.floor(u - reach / 2);
    let sum = 0;
    for (let k = 0; k < taps; k++) {
      const weight = shrink * cubic(shrink * (u - left - k));
      weights[o * taps + k] = weight;
      index[o * taps + k] = mirror(left + k - 1, length);
      sum += weight;
    }
    for (let k = 0; k < taps; k++) weights[o * taps + k] /= sum;
  }
  return { taps, index, weights };
}

/** Position in 0..length-1 of a 0-based position on the mirrored line ... 1 0 | 0 1 2 ... */
function mirror(position: number, length: number): number {
  const period = 2 * length;
  const wrapped = ((position % period) + period) % period;
  return wrapped < length ? wrapped : period - 1 - wrapped;
}

type Samples = Uint8Array | Float32Array | Float64Array;

/** Resizes rows of `rowSize` samples: (height, rowSize) -> (outHeight, rowSize). */
function resizeRows(source: Samples, rowSize: number, axis: Axis, out: Samples): void {
  const { taps, index, weights } = axis;
  const sums = new Float64Array(rowSize);
  const isByte = out instanceof Uint8Array;
  const outHeight = index.length / taps;
  for (let o = 0; o < outHeight; o++) {
    sums.fill(0);
    for (let k = o * taps; k < (o + 1) * taps; k++) {
      const weight = weights[k];
      if (weight === 0) continue;
      const from = index[k] * rowSize;
      for (let x = 0; x < rowSize; x++) sums[x] += weight * source[from + x];
    }
    const to = o * rowSize;
    for (let x = 0; x < rowSize; x++) out[to + x] = isByte ? toByte(sums[x]) : sums[x];
  }
}

/** Resizes along a row: (height, width, channels) -> (height, outWidth, channels). */
function resizeColumns(
  source: Samples,
  width: number,
  channels: number,
  axis: Axis,
  out: Samples,
): void {
  const { taps, index, weights } = axis;
  const isByte = out instanceof Uint8Array;
  const outWidth = index.length / taps;
  const height = source.length / (width * channels);
  for (let y = 0, to = 0; y < height; y++) {
    const row = y * width * channels;
    for (let o = 0; o < outWidth; o++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let k = o * taps; k < (o + 1) * taps; k++) {
          sum += weights[k] * source[row + index[k] * channels + c];
        }
        out[to++] = isByte ? toByte(sum) : sum;
      }
    }
  }
}

/** Rounds half away from zero (only non-negative values survive the clip) and clips to 0..255. */
function toByte(value: number): number {
  return value <= 0 ? 0 : value >= 255 ? 255 : Math.round(value);
}

function outSize(length: number, scale: number): number {
  return Math.ceil(length * scale - CEIL_SLACK);
}

function checkArguments(
  count: number,
  width: number,
  height: number,
  channels: number,
  scale: number,
): void {
  if (!(width >= 1 && height >= 1 && channels >= 1) || count !== width * height * channels) {
    const wanted = `${width}x${height}x${channels} samples`;
    throw expected("ERR_SHAPE", "bicubic resize", wanted, `${count}`);
  }
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw expected("ERR_ARGUMENT", "bicubic resize: scale", "a positive number", `${scale}`);
  }
}

/**
 * Resizes an 8-bit image (height, width, channels) by `scale` (1/4 shrinks, 4 enlarges) exactly as
 * MATLAB does, rounding to 8 bits after each axis. The size becomes ceil(side * scale); crop the
 * image to a multiple first where that matters. Throws ERR_SHAPE or ERR_ARGUMENT.
 */
export function bicubicResize(
  image8: Uint8Array,
  width: number,
  height: number,
  channels: number,
  scale: number,
): Resized<Uint8Array> {
  checkArguments(image8.length, width, height, channels, scale);
  const outWidth = outSize(width, scale);
  const outHeight = outSize(height, scale);
  const tall = new Uint8Array(outHeight * width * channels);
  resizeRows(image8, width * channels, axisWeights(height, outHeight, scale), tall);
  const data = new Uint8Array(outHeight * outWidth * channels);
  resizeColumns(tall, width, channels, axisWeights(width, outWidth, scale), data);
  return { data, width: outWidth, height: outHeight };
}

/** As {@link bicubicResize}, on floats: nothing is rounded or clipped, so values may overshoot. */
export function bicubicResizeFloat(
  image: Float32Array,
  width: number,
  height: number,
  channels: number,
  scale: number,
): Resized<Float32Array> {
  checkArguments(image.length, width, height, channels, scale);
  const outWidth = outSize(width, scale);
  const outHeight = outSize(height, scale);
  const tall = new Float64Array(outHeight * width * channels);
  resizeRows(image, width * channels, axisWeights(height, outHeight, scale), tall);
  const data = new Float32Array(outHeight * outWidth * channels);
  resizeColumns(tall, width, channels, axisWeights(width, outWidth, scale), data);
  return { data, width: outWidth, height: outHeight };
}
