import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { fastBackends, on, random, relativeError, uniform, zeros } from "./harness.ts";

const [TENSOR, ROW, COLUMN] = [0, 1, 2];
const every = ["reference", ...fastBackends];

interface Pick {
  readonly lower: F32;
  readonly upper: F32;
}

function dobi(x: F32, rows: number, granularity: number, bits: number, oneSided = false): Pick {
  const count = granularity === ROW ? rows : 1;
  const [lower, upper] = [zeros(count), zeros(count)];
  native().dobi(x, lower, upper, rows, x.length / rows, granularity, bits, oneSided ? 1 : 0);
  return { lower, upper };
}

/** The range picked for given column offsets. */
function dobiRange(x: F32, offsets: F32, bits: number): number {
  const range = zeros(1);
  const columns = offsets.length;
  native().dobi(x, offsets, range, x.length / columns, columns, COLUMN, bits, 0);
  return range[0];
}

/** Squared error of Eq. 1 in double, written anew: not the addon's own arithmetic. */
function squaredError(x: ArrayLike<number>, lower: number, upper: number, bits: number): number {
  const step = (upper - lower) / (2 ** bits - 1);
  let total = 0;
  for (let i = 0; i < x.length; i++) {
    const position = (Math.min(Math.max(x[i], lower), upper) - lower) / step;
    const code = position % 1 === 0.5 ? 2 * Math.round(position / 2) : Math.round(position);
    total += (x[i] - (lower + step * code)) ** 2;
  }
  return total;
}

/** All candidates of the search with their errors, by the text of the paper's code. */
function candidates(x: F32, bits: number, oneSided: boolean): { range: number; error: number }[] {
  const least = x.reduce((a, b) => Math.min(a, b));
  const most = x.reduce((a, b) => Math.max(a, b));
  return Array.from({ length: 100 }, (_, i) => {
    const lower = Math.fround(oneSided ? least : least + (i * (most - least)) / 200);
    const upper = Math.fround(most - (i * (most - least)) / (oneSided ? 100 : 200));
    return { range: upper - lower, error: squaredError(x, lower, upper, bits) };
  });
}

/** A bell with a few far outliers: the search has something to cut off. */
function bell(n: number, seed: number): F32 {
  const next = uniform(seed);
  return Float32Array.from({ length: n }, (_, i) => {
    const value = next() + next() + next() + next() - 2;
    return i % 97 === 5 ? 4 * value : value;
  });
}

/** Tensors with the errors of all their candidates, worked out once for all backends. */
const tensorCases = [
  [7, 1],
  [64, 2],
  [1000, 3],
  [9001, 4],
].flatMap(([n, seed]) =>
  [1, 2, 4, 8].flatMap((bits) =>
    [false, true].map((oneSided) => {
      const x = bell(n, seed);
      return { x, bits, oneSided, all: candidates(x, bits, oneSided) };
    }),
  ),
);

/** Offsets per column with the least error of the 100 ranges, worked out once. */
const columnCases = [
  [40, 3],
  [300, 19],
  [130, 48],
].flatMap(([rows, columns]) =>
  [2, 4].map((bits) => {
    const x = bell(rows * columns, columns);
    const offsets = random(columns, 8, -1.2, -0.8);
    const parts = Array.from(offsets, (_, c) => x.filter((_value, i) => i % columns === c));
    const error = (range: number): number =>
      parts.reduce(
        (sum, part, c) => sum + squaredError(part, offsets[c], offsets[c] + range, bits),
        0,
      );
    const largest = x.reduce((most, v, i) => Math.max(most, v - offsets[i % columns]), 0);
    const errors = Array.from({ length: 100 }, (_, i) => error((largest * (100 - i)) / 100));
    return { x, offsets, bits, largest, error, least: Math.min(...errors) };
  }),
);

describe("search over a tensor", () => {
  test.each(every)("%s picks the least error of the 100 candidates", (backend) => {
    for (const { x, bits, oneSided, all } of tensorCases) {
      const { lower, upper } = on(backend, () => dobi(x, 1, TENSOR, bits, oneSided));
      const least = Math.min(...all.map(({ error }) => error));
      const label = `${x.length} values, ${bits} bits, one-sided ${oneSided}`;
      const error = squaredError(x, lower[0], upper[0], bits);
      expect(error, label).toBeLessThanOrEqual(least * (1 + 1e-5) + 1e-12);
      const range = upper[0] - lower[0];
      expect(
        all.some((one) => Math.abs(one.range - range) < 1e-6),
        label,
      ).toBe(true);
    }
  });

  test.each(fastBackends)(
    "%s picks what the reference picks on well-separated errors",
    (backend) => {
      for (const bits of [1, 2, 4]) {
        const x = bell(4099, 9);
        const fast = on(backend, () => dobi(x, 1, TENSOR, bits));
        expect(fast).toEqual(on("reference", () => dobi(x, 1, TENSOR, bits)));
      }
    },
  );

  test.each(every)(
    "%s keeps the full range on ties: one-hot data is exact at every width",
    (backend) => {
      const x = Float32Array.from({ length: 640 }, (_, i) => (i % 5 === 0 ? 1 : 0));
      for (const bits of [1, 2, 4]) {
        const { lower, upper } = on(backend, () => dobi(x, 10, TENSOR, bits));
        expect([lower[0], upper[0]]).toEqual([0, 1]);
      }
    },
  );

  test.each(every)("%s widens constant data about its value", (backend) => {
    for (const value of [0, 0.3, -7, 1e4, 1e-20]) {
      const { lower, upper } = on(backend, () => dobi(zeros(50).fill(value), 5, TENSOR, 4));
      const least = 1e-6 * Math.max(1, Math.abs(lower[0]), Math.abs(upper[0]));
      expect(upper[0] - lower[0]).toBeGreaterThanOrEqual(least);
      expect(upper[0] - lower[0]).toBeLessThan(2 * least);
      expect(Math.abs((upper[0] + lower[0]) / 2 - value)).toBeLessThan(0.2 * least);
    }
  });

  test.each(every)("%s survives NaN and infinity", (backend) => {
    const x = Float32Array.of(1, 2, NaN, Infinity, -1);
    expect(() => on(backend, () => dobi(x, 1, TENSOR, 4))).not.toThrow();
    const alone = on(backend, () => dobi(Float32Array.of(1, 2, NaN, -1), 1, TENSOR, 4));
    expect([alone.lower[0], alone.upper[0]]).toEqual([-1, 2]);
  });
});

describe("search by rows", () => {
  test.each(every)("%s searches each row as if it were alone", (backend) => {
    for (const [rows, columns] of [
      [1, 5],
      [144, 9],
      [33, 48],
      [16, 64],
      [3, 4500],
    ]) {
      const x = bell(rows * columns, rows);
      const all = on(backend, () => dobi(x, rows, ROW, 2));
      for (const row of [0, rows >> 1, rows - 1]) {
        const alone = x.slice(row * columns, (row + 1) * columns);
        const one = on("reference", () => dobi(alone, 1, TENSOR, 2));
        const best = squaredError(alone, one.lower[0], one.upper[0], 2);
        const error = squaredError(alone, all.lower[row], all.upper[row], 2);
        expect(error, `row ${row} of ${columns}`).toBeLessThanOrEqual(best * (1 + 1e-5) + 1e-12);
      }
    }
  });

  test.each(every)("%s gives a constant row a small range, its neighbours their own", (backend) => {
    const x = random(3 * 16, 4);
    x.fill(0.5, 16, 32);
    const { lower, upper } = on(backend, () => dobi(x, 3, ROW, 4));
    expect(upper[1] - lower[1]).toBeGreaterThanOrEqual(1e-6);
    expect(upper[1] - lower[1]).toBeLessThan(2e-6);
    expect(Math.min(upper[0] - lower[0], upper[2] - lower[2])).toBeGreaterThan(0.5);
  });
});

describe("search of a common range over given offsets", () => {
  test.each(every)(
    "%s picks the least error of the 100 ranges and keeps the offsets",
    (backend) => {
      for (const { x, offsets, bits, largest, error, least } of columnCases) {
        const kept = Float32Array.from(offsets);
        const range = on(backend, () => dobiRange(x, offsets, bits));
        expect(error(range)).toBeLessThanOrEqual(least * (1 + 1e-5));
        const percent = (range / largest) * 100;
        expect(percent - Math.round(percent)).toBeCloseTo(0, 4);
        expect(relativeError(offsets, kept)).toBe(0);
      }
    },
  );

  test.each(every)("%s gives a range above 0 where no value is above its offset", (backend) => {
    const range = on(backend, () => dobiRange(zeros(12), Float32Array.of(1, 2, 3), 4));
    expect(range).toBeGreaterThanOrEqual(1e-6);
  });
});

test.each(fastBackends)("%s picks the same on one thread and on two", (backend) => {
  const x = bell(60_000, 6);
  const before = native().threads();
  try {
    const [one, two] = [1, 2].map((count) => {
      native().threads(count);
      return on(backend, () => [dobi(x, 1000, TENSOR, 4), dobi(x, 1000, ROW, 4)]);
    });
    expect(two).toEqual(one);
  } finally {
    native().threads(before);
  }
});
