/** Range searches against plain computations on small sets. */
import { expect, test } from "vitest";
import {
  densityClipped,
  dobi,
  minMax,
  percentile,
  symmetricMax,
  symmetricPercentile,
} from "../../lib/quant/ranges.ts";
import { random } from "../ops/harness.ts";

/** Squared error of x coded at `bits` between low and high. */
function error(x: Float32Array, low: number, high: number, bits: number): number {
  const levels = 2 ** bits - 1;
  let total = 0;
  for (const value of x) {
    const clipped = Math.min(Math.max(value, low), high);
    const code = Math.round(((clipped - low) / (high - low)) * levels);
    total += (value - (low + ((high - low) * code) / levels)) ** 2;
  }
  return total;
}

test("DOBI is the best of its hundred ranges", () => {
  for (const bits of [1, 2, 4]) {
    const x = random(500, bits, -1, 3).map((v) => v ** 3);
    const [least, most] = minMax(x, bits);
    const step = (most - least) / 200;
    const errors = Array.from({ length: 100 }, (_, i) =>
      error(x, least + i * step, most - i * step, bits),
    );
    const best = Math.min(...errors);
    const [low, high] = dobi(x, bits);
    expect(error(x, low, high, bits)).toBeLessThanOrEqual(best * (1 + 1e-5));
  }
});

test("a percentile leaves its share of the values on either side", () => {
  const x = random(1001, 3, -5, 5).map((v) => v ** 3);
  const [low, high] = percentile(0.05)(x, 4);
  expect(x.filter((v) => v < low).length).toBe(50);
  expect(x.filter((v) => v > high).length).toBe(50);
  expect(percentile(0)(x, 4)).toEqual(minMax(x, 4));
});

test("symmetric codes hold 0 exactly and reach the largest magnitude or its percentile", () => {
  const x = random(2000, 9, -2, 3);
  for (const bits of [2, 4, 8]) {
    const [low, high] = symmetricMax(x, bits);
    const step = (high - low) / (2 ** bits - 1);
    expect(high).toBeCloseTo(Math.max(...x), 6);
    expect(low / step).toBeCloseTo(-(2 ** (bits - 1)), 6);
    const [, most] = symmetricPercentile(0.99)(x, bits);
    const beyond = x.filter((v) => Math.abs(v) > most).length;
    expect(beyond).toBeGreaterThanOrEqual(19);
    expect(beyond).toBeLessThanOrEqual(21);
  }
  expect(symmetricMax(x, 1)).toEqual([-Math.max(...x), Math.max(...x)]);
});

test("dual clipping by density: dropping one end bin after another, by brute force", () => {
  const x = random(5000, 12, -1, 1).map((v) => v ** 5 + (v > 0.9 ? 3 * v : 0));
  for (const share of [1e-3, 0.05]) {
    // Bins as lists of values; the rule of the paper, word by word.
    const [least, most] = minMax(x, 4);
    const width = (most - least) / 2048;
    const bins: number[][] = Array.from({ length: 2048 }, () => []);
    for (const value of x) bins[Math.min(2047, Math.floor((value - least) / width))].push(value);
    let [first, last] = [0, 2048];
    const kept = (from: number, to: number): number => bins.slice(from, to).flat().length;
    for (;;) {
      const next =
        bins[first].length <= bins[last - 1].length ? [first + 1, last] : [first, last - 1];
      if (kept(next[0], next[1]) <= (1 - share) * x.length) break;
      [first, last] = next;
    }
    const [low, high] = densityClipped(share)(x, 4);
    expect(low).toBeCloseTo(least + first * width, 9);
    expect(high).toBeCloseTo(least + last * width, 9);
    const inside = x.filter((v) => v >= low && v <= high).length;
    expect(inside).toBeGreaterThan((1 - share) * x.length - 1);
  }
  expect(densityClipped(0.1)(Float32Array.of(2, 2, 2), 4)).toEqual([2, 2]);
});
