/**
 * Range searches: from the values that one quantiser sees to the interval that its codes cover.
 * A search is a function of the values and the bits; calibration (calibrate.ts) applies it to a
 * tensor, to every row of a weight, or to activations centred on their channels.
 */
import { type F32, native } from "../binding.ts";

/** Lower and upper bound for `x` at `bits`. */
export type RangeSearch = (x: F32, bits: number) => readonly [number, number];

/** Least and largest value. */
export function extremes(x: F32): [number, number] {
  let [low, high] = [x[0], x[0]];
  for (let i = 1; i < x.length; i++) {
    if (x[i] < low) low = x[i];
    else if (x[i] > high) high = x[i];
  }
  return [low, high];
}

/** DOBI (spr2q-method 4.5): of 100 ranges that shrink to the middle, the least squared error. */
export const dobi: RangeSearch = (x, bits) => {
  const [lower, upper] = [new Float32Array(1), new Float32Array(1)];
  native().dobi(x, lower, upper, 1, x.length, 0, bits, 0);
  return [lower[0], upper[0]];
};

/** The whole range, nothing clipped. */
export const minMax: RangeSearch = (x) => extremes(x);

/** Clips `share` of the values on each side, by linear interpolation between order statistics. */
export function percentile(share: number): RangeSearch {
  return (x) => {
    const sorted = Float32Array.from(x).sort();
    return [quantile(sorted, share), quantile(sorted, 1 - share)];
  };
}

/** Value at `share` (0 ... 1) of sorted values, interpolated. */
export function quantile(sorted: F32, share: number): number {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/**
 * Range of the symmetric integer codes -2^(n-1) ... 2^(n-1) - 1 whose largest stands for `most`:
 * 0 is a code, and one code more lies below it than above. One bit has no code above 0; its two
 * codes stand for -most and most.
 */
export function symmetric(most: number, bits: number): [number, number] {
  if (bits === 1) return [-most, most];
  const half = 2 ** (bits - 1);
  const step = most / (half - 1);
  return [-half * step, most];
}

/** Symmetric codes over the largest magnitude below which `share` of the magnitudes lie. */
export function symmetricPercentile(share: number): RangeSearch {
  return (x, bits) => {
    const sorted = x.map(Math.abs).sort();
    return symmetric(quantile(sorted, share), bits);
  };
}

/** Symmetric codes over the largest magnitude. */
export const symmetricMax: RangeSearch = (x, bits) => {
  const [low, high] = extremes(x);
  return symmetric(Math.max(-low, high), bits);
};
