/** adam: several steps against the textbook in double, fast against reference, threads. */
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { on, random, relativeError, zeros } from "./harness.ts";
import { differingNames, onThreads } from "./threads.ts";

const RATE = 1e-2;
const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

/** Parameter, m and v after `steps` steps with fixed gradients, on the backend in use. */
function run(n: number, steps: number, epsilon: number) {
  const parameter = random(n + 1, 1);
  parameter[n] = 77;
  const m = zeros(n);
  const v = zeros(n);
  for (let step = 1; step <= steps; step++) {
    const gradient = random(n, 100 + step);
    native().adam(parameter, gradient, m, v, n, step, RATE, BETA1, BETA2, epsilon);
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
      native().adam(parameter, zeros(33), zeros(33), zeros(33), 33, 1, RATE, BETA1, BETA2, EPSILON);
      expect(parameter).toEqual(random(33, 5));
    });
  });

  test("one and two threads give the same bits", () => {
    const one = onThreads(backend, 1, () => run(50_021, 2, EPSILON));
    const two = onThreads(backend, 2, () => run(50_021, 2, EPSILON));
    expect(differingNames(two, one)).toEqual([]);
  });
});
