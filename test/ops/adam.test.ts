/** adam: several steps against the textbook in double, fast against reference, threads. */
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { bytesOf, on, random, relativeError, zeros } from "./harness.ts";
import { differingNames, onThreads } from "./threads.ts";

const RATE = 1e-2;
const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

type Tensors = Float32Array<ArrayBuffer>[];

const stepOf = (
  parameters: Tensors,
  gradients: Tensors,
  m: Tensors,
  v: Tensors,
  rates: number[],
  step: number,
  epsilon = EPSILON,
): void => {
  const rest = [step, BETA1, BETA2, epsilon] as const;
  native().adam(parameters, gradients, m, v, Float64Array.from(rates), ...rest);
};

/** Parameter, m and v after `steps` steps with fixed gradients, on the backend in use. */
function run(n: number, steps: number, epsilon: number) {
  const parameter = random(n + 1, 1);
  parameter[n] = 77;
  const m = zeros(n);
  const v = zeros(n);
  for (let step = 1; step <= steps; step++) {
    const gradient = random(n, 100 + step);
    stepOf([parameter.subarray(0, n)], [gradient], [m], [v], [RATE], step, epsilon);
  }
  expect(parameter[n]).toBe(77);
  return { parameter, m, v };
}

describe.each(native().backends())("on %s", (backend) => {
  test.each([
    [1, 5, EPSILON],
    [19, 5, EPSILON],
    [997, 20, 0.1],
    [40_009, 2, EPSILON],
  ])("%d values follow the textbook for %d steps", (n, steps, epsilon) => {
    const parameter = Float64Array.from(random(n + 1, 1));
    const m = new Float64Array(n);
    const v = new Float64Array(n);
    for (let step = 1; step <= steps; step++) {
      const gradient = random(n, 100 + step);
      for (let i = 0; i < n; i++) {
        m[i] = BETA1 * m[i] + (1 - BETA1) * gradient[i];
        v[i] = BETA2 * v[i] + (1 - BETA2) * gradient[i] ** 2;
        const root = Math.sqrt(v[i] / (1 - BETA2 ** step));
        parameter[i] -= (RATE * m[i]) / (1 - BETA1 ** step) / (root + epsilon);
      }
    }
    const got = on(backend, () => run(n, steps, epsilon));
    expect(relativeError(got.parameter.subarray(0, n), parameter.subarray(0, n))).toBeLessThan(
      1e-5,
    );
    expect(relativeError(got.m, m)).toBeLessThan(1e-5);
    expect(relativeError(got.v, v)).toBeLessThan(1e-5);
  });

  test("a zero gradient at the first step changes nothing", () => {
    on(backend, () => {
      const parameter = random(33, 5);
      stepOf([parameter], [zeros(33)], [zeros(33)], [zeros(33)], [RATE], 1);
      expect(parameter).toEqual(random(33, 5));
    });
  });

  test("one and two threads give the same bits", () => {
    const one = onThreads(backend, 1, () => run(50_021, 2, EPSILON));
    const two = onThreads(backend, 2, () => run(50_021, 2, EPSILON));
    expect(differingNames(two, one)).toEqual([]);
  });

  test("900 tensors in one call get the bits of each alone, at rates of their own", () => {
    // Sizes around the edges of vectors and of the GPU's pieces, and none at all; more tensors
    // than a table of the GPU holds.
    const sizes = [1, 3, 48, 0, 257, 1023, 1024, 1025, 2304];
    const list = (seed: number, low = -1) =>
      Array.from({ length: 900 }, (_, i) => random(sizes[i % 9], seed + i, low));
    const rates = Array.from({ length: 900 }, (_, i) => (i % 17) * 1e-3);
    const run = (together: boolean) =>
      on(backend, () => {
        const [parameters, gradients, m, v] = [list(1), list(3000), list(6000), list(9000, 0)];
        if (together) stepOf(parameters, gradients, m, v, rates, 4);
        else {
          for (let i = 0; i < rates.length; i++) {
            stepOf([parameters[i]], [gradients[i]], [m[i]], [v[i]], [rates[i]], 4);
          }
        }
        return bytesOf(...parameters, ...m, ...v);
      });
    const together = run(true);
    expect(together.equals(run(false))).toBe(true);
    expect(together.equals(bytesOf(...list(1), ...list(6000), ...list(9000, 0)))).toBe(false);
  });

  test("lists that do not fit together are refused", () => {
    const [one, two] = [zeros(1), zeros(2)];
    expect(() => stepOf([one], [one], [one], [], [RATE], 1)).toThrow(/adam: needs/);
    expect(() => stepOf([two], [one], [two], [two], [RATE], 1)).toThrow(/adam: needs/);
    expect(() => stepOf([one], [one], [one], [one], [], 1)).toThrow(/rates/);
    expect(() => stepOf([one], [one], [one], [one], [RATE], 0)).toThrow(/step >= 1/);
    const typed = () => native().adam([one], [one], [one], [one], [1] as never, 1, 0.9, 0.9, 1);
    expect(typed).toThrow(/rates must be a Float64Array/);
    expect(() => stepOf(new Array(2 ** 31), [one], [one], [one], [RATE], 1)).toThrow(/at most/);
  });
});
