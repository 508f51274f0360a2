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

/** The same with 0 as the lower bound: only the upper one moves. */
export const oneSidedDobi: RangeSearch = (x, bits) => {
  const [lower, upper] = [new Float32Array(1), new Float32Array(1)];
  native().dobi(x, lower, upper, 1, x.length, 0, bits, 1);
  return [0, upper[0]];
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

/** Bins of the histogram that {@link densityClipped} walks on. */
const DENSITY_BINS = 2048;

/**
 * Density-based dual clipping (DBDC): from a histogram, the end bin that holds fewer values is
 * dropped, again and again, as long as more than 1 - share of the values are kept.
 */
export function densityClipped(share: number): RangeSearch {
  return (x) => {
    const [low, high] = extremes(x);
    const width = (high - low) / DENSITY_BINS;
    if (!(width > 0)) return [low, high];
    const counts = new Uint32Array(DENSITY_BINS);
    for (const value of x) counts[Math.min(DENSITY_BINS - 1, Math.floor((value - low) / width))]++;
    const least = (1 - share) * x.length;
    let [first, last, kept] = [0, DENSITY_BINS - 1, x.length];
    while (first < last) {
      const fromBelow = counts[first] <= counts[last];
      const dropped = fromBelow ? counts[first] : counts[last];
      if (kept - dropped <= least) break;
      kept -= dropped;
      if (fromBelow) first++;
      else last--;
    }
    return [low + first * width, low + (last + 1) * width];
  };
}

/** Mean |x - code|^power of x coded at `bits` between low and high. */
function powerError(x: F32, low: number, high: number, bits: number, power: number): number {
  const levels = 2 ** bits - 1;
  const step = (high - low) / levels;
  let total = 0;
  for (const value of x) {
    const u = (Math.min(Math.max(value, low), high) - low) / step;
    total += Math.abs(value - (low + step * Math.round(u))) ** power;
  }
  return total / x.length;
}

/** Of `candidates` the range with the least error; the first of equals. */
function leastError(
  x: F32,
  bits: number,
  power: number,
  candidates: readonly (readonly [number, number])[],
): readonly [number, number] {
  const thinned = x.length > GRID_VALUES ? thinnedValues(x) : x;
  let [best, least] = [candidates[0], Number.POSITIVE_INFINITY];
  for (const range of candidates) {
    const error = range[1] > range[0] ? powerError(thinned, ...range, bits, power) : least;
    if (error < least) [best, least] = [range, error];
  }
  return best;
}

/** Values on which a grid of ranges is tried; more change little and take long. */
const GRID_VALUES = 512;

function thinnedValues(x: F32): F32 {
  const every = x.length / GRID_VALUES;
  return Float32Array.from({ length: GRID_VALUES }, (_, i) => x[Math.floor(i * every)]);
}

/** Of 50 ranges that shrink from both extremes to the middle, the least mean |error|^power. */
export function powerGrid(power: number): RangeSearch {
  return (x, bits) => {
    const [low, high] = extremes(x);
    const step = (high - low) / 100;
    const candidates = Array.from(
      { length: 50 },
      (_, i) => [low + i * step, high - i * step] as const,
    );
    return leastError(x, bits, power, candidates);
  };
}

/** The same over symmetric ranges that end at 1 % to 100 % of the largest magnitude. */
export function symmetricPowerGrid(power: number): RangeSearch {
  return (x, bits) => {
    const [low, high] = extremes(x);
    const most = Math.max(-low, high);
    const candidates = Array.from({ length: 100 }, (_, i) =>
      symmetric((most * (100 - i)) / 100, bits),
    );
    return leastError(x, bits, power, candidates);
  };
}
