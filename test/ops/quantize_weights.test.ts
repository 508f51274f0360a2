/** quantizeWeights and its gradient: many weights in one call, each as by the ops for one tensor. */
import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { bytesOf, fastBackends, on, random, zeros } from "./harness.ts";

/** A weight with a pair of bounds for each row, or one for all; x = bound occurs. */
interface Weight {
  readonly x: F32;
  readonly lower: F32;
  readonly upper: F32;
  readonly gy: F32;
  readonly columns: number;
}

function weight(pairs: number, columns: number, seed: number): Weight {
  const n = pairs * columns;
  const [lower, upper] = [random(pairs, seed, -1.5, -0.5), random(pairs, seed + 1, 0.4, 1.4)];
  const x = random(n, seed + 2, -2, 2);
  x[0] = lower[0];
  x[n - 1] = upper[pairs - 1];
  return { x, lower, upper, gy: random(n, seed + 3), columns };
}

const of = (weights: readonly Weight[], name: "x" | "lower" | "upper" | "gy"): F32[] =>
  weights.map((w) => w[name]);
const like = (list: readonly F32[]): F32[] => list.map(({ length }) => zeros(length));

/** Codes, values and the three gradients of every weight, in the bytes of one buffer. */
function together(weights: readonly Weight[], bits: number): Buffer {
  const [x, lower, upper, gy] = (["x", "lower", "upper", "gy"] as const).map((n) => of(weights, n));
  const codes = x.map(({ length }) => new Uint8Array(length));
  const [values, gx, glower, gupper] = [x, x, lower, upper].map(like);
  native().quantizeWeights(x, lower, upper, codes, values, bits);
  native().quantizeWeightsGrad(x, lower, upper, gy, gx, glower, gupper, bits);
  return Buffer.concat([...codes, bytesOf(...values, ...gx, ...glower, ...gupper)]);
}

function oneByOne(weights: readonly Weight[], bits: number): Buffer {
  const all = weights.map(({ x, lower, upper, gy, columns }) => {
    const sides = [x.length / columns, columns, lower.length === 1 ? 0 : 1, bits] as const;
    const tensor = lower.length === 1 ? ([1, x.length, 0, bits] as const) : sides;
    const codes = new Uint8Array(x.length);
    const [values, gx, glower, gupper] = like([x, x, lower, upper]);
    native().quantize(x, lower, upper, codes, ...tensor);
    native().dequantize(codes, lower, upper, values, ...tensor);
    native().qdqGrad(x, lower, upper, gy, gx, glower, gupper, ...tensor);
    return { codes, values, gx, glower, gupper };
  });
  const lists = (["values", "gx", "glower", "gupper"] as const).flatMap((n) =>
    all.map((w) => w[n]),
  );
  return Buffer.concat([...all.map(({ codes }) => codes), bytesOf(...lists)]);
}

describe.each(["reference", ...fastBackends])("weights quantised together on %s", (backend) => {
  test.each([1, 2, 4, 8])("%i bit: the bits of each alone", (bits) => {
    const shapes = [
      [1, 1],
      [144, 48],
      [1, 20_011],
      [7, 13],
      [48, 1],
      [1, 6912],
      [9, 25],
    ] as const;
    const weights = shapes.map(([pairs, columns], i) => weight(pairs, columns, 10 * i + bits));
    const got = on(backend, () => together(weights, bits));
    expect(got.equals(on(backend, () => oneByOne(weights, bits)))).toBe(true);
  });

  test("900 weights in one call, more than a table of the GPU holds", () => {
    const weights = Array.from({ length: 900 }, (_, i) => weight(1 + (i % 11), 1 + (i % 7), i));
    const got = on(backend, () => together(weights, 4));
    expect(got.equals(on(backend, () => oneByOne(weights, 4)))).toBe(true);
    const n = weights.reduce((total, { x }) => total + x.length, 0);
    expect(new Set(got.subarray(0, n)).size).toBe(16);
  });

  test("no weights are no work", () => {
    on(backend, () => expect(together([], 4)).toHaveLength(0));
  });
});

test("lists that do not fit together, and weights without bounds, are refused", () => {
  const [one, none, code] = [zeros(1), zeros(0), new Uint8Array(1)];
  const call = (x: F32[], lower: F32[], codes: Uint8Array<ArrayBuffer>[], bits = 4) =>
    native().quantizeWeights(x, lower, lower, codes, x, bits);
  expect(() => call([one], [one, one], [code])).toThrow(/quantize_weights: needs lower.size/);
  expect(() => call([one], [none], [code])).toThrow(/needs lower\[i\].size > 0/);
  expect(() => call([one], [zeros(2)], [code])).toThrow(/needs rows >= 0 && columns > 0/);
  expect(() => call([one], [one], [new Uint8Array(0)])).toThrow(/codes.size >= rows/);
  expect(() => call([one], [one], [code], 9)).toThrow(/bits <= 8/);
  expect(() => call([one], [one], [one as never])).toThrow(/codes must be a Uint8Array/);
  expect(() => call([one], [one], [null as never])).toThrow(/codes must have no gaps/);
  expect(() => call([one], [one], code as never)).toThrow(/codes must be an array of tensors/);
});
