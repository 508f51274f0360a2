import { describe, expect, test } from "vitest";
import type { F32, U8 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { hasTestData } from "../data.ts";
import {
  dot,
  fastBackends,
  finiteDifferenceError,
  golden,
  on,
  random,
  relativeError,
  zeros,
} from "./harness.ts";

const [TENSOR, ROW, COLUMN] = [0, 1, 2];
const granularities = [TENSOR, ROW, COLUMN];

interface Problem {
  readonly x: F32;
  readonly lower: F32;
  readonly upper: F32;
  readonly rows: number;
  readonly columns: number;
  readonly granularity: number;
  readonly bits: number;
}

/** Values of [-2, 2) over a grid that clips on both sides; the first values lie on the bounds. */
function problem(rows: number, columns: number, granularity: number, bits: number): Problem {
  const seed = rows * 1000 + columns * 10 + granularity;
  const x = random(rows * columns, seed, -2, 2);
  const pairs = granularity === TENSOR ? 1 : granularity === ROW ? rows : columns;
  const lower = random(pairs, seed + 1, -1.5, -0.9);
  const upper = granularity === COLUMN ? Float32Array.of(2.3) : random(pairs, seed + 2, 0.8, 1.7);
  x[0] = lower[0];
  if (columns > 1 && granularity !== COLUMN) x[1] = upper[0];
  return { x, lower, upper, rows, columns, granularity, bits };
}

function quantize(p: Problem): U8 {
  const codes = new Uint8Array(p.x.length);
  const { x, lower, upper } = p;
  native().quantize(x, lower, upper, codes, p.rows, p.columns, p.granularity, p.bits);
  return codes;
}

function dequantize(p: Problem, codes: U8): F32 {
  const y = zeros(codes.length);
  native().dequantize(codes, p.lower, p.upper, y, p.rows, p.columns, p.granularity, p.bits);
  return y;
}

function qdq(p: Problem): F32 {
  const y = zeros(p.x.length);
  native().qdq(p.x, p.lower, p.upper, y, p.rows, p.columns, p.granularity, p.bits);
  return y;
}

function qdqGrad(p: Problem, gy: F32): { gx: F32; glower: F32; gupper: F32 } {
  const gx = zeros(p.x.length);
  const glower = zeros(p.lower.length);
  const gupper = zeros(p.upper.length);
  const { x, lower, upper, rows, columns, granularity, bits } = p;
  native().qdqGrad(x, lower, upper, gy, gx, glower, gupper, rows, columns, granularity, bits);
  return { gx, glower, gupper };
}

const shapes: readonly (readonly [number, number])[] = [
  [1, 1],
  [3, 1],
  [1, 7],
  [5, 3],
  [9, 19],
  [144, 9],
  [701, 24],
  [1030, 48],
  [2, 8209],
];

describe("the grid", () => {
  test("2 bits between -1 and 2: values snap to -1, 0, 1, 2, halves to the even code", () => {
    const x = Float32Array.of(-9, -1, -0.51, -0.49, 0, 0.6, 1, 1.7, 2, 9, -0.5, 0.5, 1.5, NaN);
    const p = { x, rows: 1, columns: x.length, granularity: TENSOR, bits: 2 };
    const full = { ...p, lower: Float32Array.of(-1), upper: Float32Array.of(2) };
    for (const backend of ["reference", ...fastBackends]) {
      const codes = on(backend, () => quantize(full));
      expect([...codes]).toEqual([0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 0, 2, 2, 0]);
      const y = on(backend, () => qdq(full));
      expect([...y]).toEqual([...codes].map((code) => code - 1));
    }
  });

  test("columns share a step and have their own offsets", () => {
    const p: Problem = {
      x: Float32Array.of(0.1, 10.1, 0.9, 10.9, 5, 5),
      lower: Float32Array.of(0, 10),
      upper: Float32Array.of(1.5),
      rows: 3,
      columns: 2,
      granularity: COLUMN,
      bits: 2,
    };
    for (const backend of ["reference", ...fastBackends]) {
      expect([...on(backend, () => quantize(p))]).toEqual([0, 0, 2, 2, 3, 0]);
      expect([...on(backend, () => qdq(p))]).toEqual([0, 10, 1, 11, 1.5, 10]);
    }
  });

  test.each(fastBackends)("%s has the reference's codes and values, bit for bit", (backend) => {
    for (const [rows, columns] of shapes) {
      for (const granularity of granularities) {
        for (const bits of [1, 2, 3, 4, 8]) {
          const p = problem(rows, columns, granularity, bits);
          const codes = on("reference", () => quantize(p));
          const y = on("reference", () => qdq(p));
          const label = `${rows} x ${columns}, granularity ${granularity}, ${bits} bits`;
          const fast = on(backend, () => quantize(p));
          expect(Buffer.from(fast).equals(Buffer.from(codes)), label).toBe(true);
          expect(
            relativeError(
              on(backend, () => qdq(p)),
              y,
            ),
            label,
          ).toBe(0);
          expect(
            relativeError(
              on(backend, () => dequantize(p, codes)),
              y,
            ),
            label,
          ).toBe(0);
          expect(codes.every((code) => code < 2 ** bits)).toBe(true);
        }
      }
    }
  });

  test.each(fastBackends)("%s: values on the grid stay where they are", (backend) => {
    for (const granularity of granularities) {
      const p = problem(61, 19, granularity, 4);
      const once = on(backend, () => qdq(p));
      const twice = on(backend, () => qdq({ ...p, x: once }));
      expect(relativeError(twice, once)).toBe(0);
    }
  });
});

describe("straight-through gradients", () => {
  test("the regions and both ties follow Eq. 8", () => {
    const x = Float32Array.of(-9, -1, 0.3, 2, 9);
    const gy = Float32Array.of(1, 10, 100, 1000, 10_000);
    const p: Problem = {
      x,
      lower: Float32Array.of(-1),
      upper: Float32Array.of(2),
      rows: 1,
      columns: 5,
      granularity: TENSOR,
      bits: 2,
    };
    const e = (100 * (1 - 1.3)) / 3; // u = 1.3 at x = 0.3
    for (const backend of ["reference", ...fastBackends]) {
      const g = on(backend, () => qdqGrad(p, gy));
      expect([...g.gx]).toEqual([0, 10, 100, 1000, 0]);
      expect(relativeError(g.glower, [11 - e])).toBeLessThan(1e-6);
      expect(relativeError(g.gupper, [11_000 + e])).toBeLessThan(1e-6);
    }
  });

  test("per column, the offset collects what is clipped and the range the rest", () => {
    const p: Problem = {
      x: Float32Array.of(-9, 10, 0.3, 11.25, 9, 99),
      lower: Float32Array.of(0, 10),
      upper: Float32Array.of(1.5),
      rows: 3,
      columns: 2,
      granularity: COLUMN,
      bits: 2,
    };
    const gy = Float32Array.of(1, 10, 100, 1000, 10_000, 100_000);
    const e = (100 * (1 - 0.6) + 1000 * (2 - 2.5)) / 3; // u = 0.6 and 2.5
    for (const backend of ["reference", ...fastBackends]) {
      const g = on(backend, () => qdqGrad(p, gy));
      expect([...g.gx]).toEqual([0, 10, 100, 1000, 0, 0]);
      expect(relativeError(g.glower, [10_001, 100_010])).toBeLessThan(1e-6);
      expect(relativeError(g.gupper, [110_000 + e])).toBeLessThan(1e-6);
    }
  });

  test.each(fastBackends)("%s agrees with the reference at every granularity", (backend) => {
    for (const [rows, columns] of shapes) {
      for (const granularity of granularities) {
        for (const bits of [1, 2, 4, 8]) {
          const p = problem(rows, columns, granularity, bits);
          const gy = random(p.x.length, 77, -0.5, 1);
          const g = on("reference", () => qdqGrad(p, gy));
          const f = on(backend, () => qdqGrad(p, gy));
          const label = `${rows} x ${columns}, granularity ${granularity}, ${bits} bits`;
          expect(relativeError(f.gx, g.gx), `gx ${label}`).toBe(0);
          expect(relativeError(f.glower, g.glower), `glower ${label}`).toBeLessThan(1e-5);
          expect(relativeError(f.gupper, g.gupper), `gupper ${label}`).toBeLessThan(1e-5);
        }
      }
    }
  });

  test("with the rounding residual frozen they are those of central differences", () => {
    // y + (u - round(u)) step(lower, upper) is the clip plus a residual r = round(u) - u, frozen at
    // the point: y = clip(x) + r (upper - lower)/L. Its ordinary derivative is the straight-through one.
    for (const granularity of granularities) {
      const p = problem(4, 6, granularity, 3);
      p.x[0] += 0.1; // off the bounds, where the clip has no derivative
      if (granularity !== COLUMN) p.x[1] -= 0.1;
      const gy = random(24, 5);
      const at = (i: number): number =>
        granularity === TENSOR ? 0 : granularity === ROW ? Math.floor(i / 6) : i % 6;
      const bounds = (i: number): [number, number] => {
        const lower = p.lower[at(i)];
        return [lower, granularity === COLUMN ? lower + p.upper[0] : p.upper[at(i)]];
      };
      const clip = (i: number): number => {
        const [lower, upper] = bounds(i);
        return Math.min(Math.max(p.x[i], lower), upper);
      };
      const y = on("reference", () => qdq(p));
      const residual = Array.from(y, (value, i) => {
        const [lower, upper] = bounds(i);
        return (value - clip(i)) / (upper - lower);
      });
      const surrogate = (): number => {
        const value = residual.map((r, i) => {
          const [lower, upper] = bounds(i);
          return clip(i) + r * (upper - lower);
        });
        return dot(value, gy);
      };
      const g = on("reference", () => qdqGrad(p, gy));
      const positions = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
      const error = (x: F32, gradient: F32): number =>
        finiteDifferenceError(surrogate, x, gradient, positions(x.length), 1e-4);
      expect(error(p.x, g.gx)).toBeLessThan(1e-4);
      expect(error(p.lower, g.glower)).toBeLessThan(1e-4);
      expect(error(p.upper, g.gupper)).toBeLessThan(1e-4);
    }
  });

  test.each(fastBackends)("%s gives the same bits on one thread and on two", (backend) => {
    const before = native().threads();
    try {
      for (const granularity of granularities) {
        const p = problem(2500, 48, granularity, 4);
        const gy = random(p.x.length, 3);
        const [one, two] = [1, 2].map((count) => {
          native().threads(count);
          const g = on(backend, () => qdqGrad(p, gy));
          return [g.gx, g.glower, g.gupper, on(backend, () => qdq(p))];
        });
        expect(two.map((output, i) => relativeError(output, one[i]))).toEqual([0, 0, 0, 0]);
      }
    } finally {
      native().threads(before);
    }
  });
});

describe.skipIf(!hasTestData)("against the golden files", () => {
  const cases = ["reference", ...fastBackends].flatMap((backend) =>
    [1, 2, 4, 8].map((bits) => [backend, bits] as const),
  );
  test.each(cases)("%s reproduces qdq at %i bits and its three gradients", (backend, bits) => {
    const file = golden(`golden/ops/qdq_${bits}bit.safetensors`);
    const of = (name: string): F32 => file.get(name)!.data;
    const shape = { rows: 64, columns: 48, granularity: TENSOR, bits };
    const p: Problem = { x: of("x"), lower: of("a"), upper: of("b"), ...shape };
    const y = on(backend, () => qdq(p));
    expect(relativeError(y, of("y"))).toBeLessThan(1e-5);
    const g = on(backend, () => qdqGrad(p, of("grad_y")));
    expect(relativeError(g.gx, of("grad_x"))).toBeLessThan(1e-5);
    expect(relativeError(g.glower, of("grad_a"))).toBeLessThan(1e-5);
    expect(relativeError(g.gupper, of("grad_b"))).toBeLessThan(1e-5);
  });
});

test("at 1 bit a tie falls on code 0, as NaN does, and infinities clip, on every backend", () => {
  const x = Float32Array.of(0.5, 0.50000006, 0.49999997, Number.NaN, Infinity, -Infinity, 2, -1, 1);
  const p = { x, rows: 1, columns: 9, granularity: TENSOR, bits: 1 };
  const bounds = { lower: Float32Array.of(0), upper: Float32Array.of(1) };
  for (const backend of ["reference", ...fastBackends]) {
    const codes = on(backend, () => quantize({ ...p, ...bounds }));
    expect([...codes], backend).toEqual([0, 1, 0, 0, 1, 0, 1, 0, 1]);
  }
});
