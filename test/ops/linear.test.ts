/** linear, its gradients and transpose: fast against reference, gradients, threads, edges. */
import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import {
  dot,
  fastBackends,
  finiteDifferenceError,
  on,
  random,
  relativeError,
  zeros,
} from "./harness.ts";
import { differingNames, onThreads } from "./threads.ts";

/** rows, in, out: ones, primes, the network's widths, more than one task and one chunk of rows. */
const SHAPES = [
  [0, 3, 2],
  [1, 1, 1],
  [1, 48, 48],
  [7, 3, 48],
  [13, 48, 19],
  [101, 16, 64],
  [97, 24, 48],
  [5, 19, 3],
  [23, 37, 149],
  [4999, 31, 17],
] as const;

interface Case {
  readonly x: F32;
  readonly weight: F32;
  readonly bias: F32;
  readonly gy: F32;
}

function makeCase(rows: number, inputs: number, outputs: number, seed: number): Case {
  return {
    x: random(rows * inputs, seed),
    weight: random(outputs * inputs, seed + 1),
    bias: random(outputs, seed + 2),
    gy: random(rows * outputs, seed + 3),
  };
}

/** Every result of the family at one shape; a sentinel behind each output must survive. */
function runAll(c: Case, rows: number, inputs: number, outputs: number) {
  const guarded = (n: number) => new Float32Array(n + 1).fill(77);
  const y = guarded(rows * outputs);
  const plain = guarded(rows * outputs);
  const gx = guarded(rows * inputs);
  const gweight = guarded(outputs * inputs);
  const gbias = guarded(outputs);
  const transposed = guarded(rows * inputs);
  native().linear(c.x, c.weight, c.bias, y, rows, inputs, outputs);
  native().linear(c.x, c.weight, null, plain, rows, inputs, outputs);
  native().linearGradInput(c.gy, c.weight, gx, rows, inputs, outputs);
  native().linearGradWeight(c.gy, c.x, gweight, gbias, rows, inputs, outputs);
  native().transpose(c.x, transposed, rows, inputs);
  return { y, plain, gx, gweight, gbias, transposed };
}

describe.each(fastBackends)("on %s", (backend) => {
  test.each(SHAPES)("rows %d, in %d, out %d agree with the reference", (rows, inputs, outputs) => {
    const c = makeCase(rows, inputs, outputs, 11 * rows + inputs);
    const expected = on("reference", () => runAll(c, rows, inputs, outputs));
    const got = on(backend, () => runAll(c, rows, inputs, outputs));
    for (const name of ["y", "plain", "gx", "gweight", "gbias"] as const) {
      const n = expected[name].length - 1;
      const error = relativeError(got[name].subarray(0, n), expected[name].subarray(0, n));
      expect(error, name).toBeLessThanOrEqual(1e-5);
      expect(got[name][n], `the value behind ${name}`).toBe(77);
    }
    expect(differingNames({ t: got.transposed }, { t: expected.transposed })).toEqual([]);
  });

  test("one and two threads give the same bits", () => {
    const [rows, inputs, outputs] = [7001, 48, 21];
    const c = makeCase(rows, inputs, outputs, 5);
    const one = onThreads(backend, 1, () => runAll(c, rows, inputs, outputs));
    const two = onThreads(backend, 2, () => runAll(c, rows, inputs, outputs));
    expect(differingNames(two, one)).toEqual([]);
  });

  test("a bias gradient that is not asked for leaves the weight gradient as it is", () => {
    const c = makeCase(50, 7, 5, 3);
    on(backend, () => {
      const [withBias, without] = [zeros(35), zeros(35)];
      native().linearGradWeight(c.gy, c.x, withBias, zeros(5), 50, 7, 5);
      native().linearGradWeight(c.gy, c.x, without, null, 50, 7, 5);
      expect(without).toEqual(withBias);
    });
  });
});

test("the reference multiplies a hand-made matrix right", () => {
  on("reference", () => {
    const y = zeros(2);
    const weight = Float32Array.of(1, 2, 3, -1, 0, 4);
    native().linear(Float32Array.of(1, 10, 100), weight, Float32Array.of(5, 7), y, 1, 3, 2);
    expect([...y]).toEqual([326, 406]);
    const transposed = zeros(6);
    native().transpose(weight, transposed, 2, 3);
    expect([...transposed]).toEqual([1, -1, 2, 0, 3, 4]);
  });
});

test("gradients of linear match central differences", () => {
  const [rows, inputs, outputs] = [6, 5, 4];
  const c = makeCase(rows, inputs, outputs, 40);
  on("reference", () => {
    const { gx, gweight, gbias } = runAll(c, rows, inputs, outputs);
    const y = zeros(rows * outputs);
    const loss = () => {
      native().linear(c.x, c.weight, c.bias, y, rows, inputs, outputs);
      return dot(y, c.gy);
    };
    const all = (n: number) => Array.from({ length: n }, (_, i) => i);
    expect(finiteDifferenceError(loss, c.x, gx, all(rows * inputs))).toBeLessThan(1e-4);
    expect(finiteDifferenceError(loss, c.weight, gweight, all(inputs * outputs))).toBeLessThan(
      1e-4,
    );
    expect(finiteDifferenceError(loss, c.bias, gbias, all(outputs))).toBeLessThan(1e-4);
  });
});

test("operands that are too small are refused by name", () => {
  expect(() => native().linear(zeros(5), zeros(6), null, zeros(4), 2, 3, 2)).toThrow(/linear/);
});
