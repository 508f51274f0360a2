/** Softmax of the few logits of a gate, and its gradient. */
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { dot, fastBackends, finiteDifferenceError, on, random, zeros } from "./harness.ts";

describe.each(["reference", ...fastBackends])("softmax on %s", (backend) => {
  test.each([
    [1, 4],
    [7, 3],
    [70, 1],
    [65, 17],
  ])("%i rows of %i: shares of one, those of doubles rounded once", (rows, columns) => {
    const x = random(rows * columns, 1, -30, 30);
    const y = zeros(x.length);
    on(backend, () => native().softmax(x, y, rows, columns));
    for (let row = 0; row < rows; row++) {
      const logits = [...x.subarray(row * columns, (row + 1) * columns)];
      const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
      const total = powers.reduce((a, b) => a + b, 0);
      const wanted = powers.map((power) => Math.fround(power / total));
      expect([...y.subarray(row * columns, (row + 1) * columns)]).toEqual(wanted);
    }
  });

  test("its gradient is that of finite differences", () => {
    const [rows, columns] = [5, 4];
    const [x, gy, y, gx] = [random(20, 2), random(20, 3), zeros(20), zeros(20)];
    const forward = (): number => {
      on(backend, () => native().softmax(x, y, rows, columns));
      return dot(y, gy);
    };
    forward();
    on(backend, () => native().softmaxGrad(y, gy, gx, rows, columns));
    const all = Array.from({ length: 20 }, (_, i) => i);
    expect(finiteDifferenceError(forward, x, gx, all)).toBeLessThan(1e-3);
  });
});

describe.each(["reference", ...fastBackends])("bounds kept apart on %s", (backend) => {
  const separate = (lower: number[], upper: number[] | null, granularity: number) => {
    const [low, high] = [Float32Array.from(lower), upper && Float32Array.from(upper)];
    const count = high?.length ?? 1;
    on(backend, () => native().separateBounds(low, high, count, granularity, upper ? 0 : 1));
    return [[...low], high && [...high]];
  };
  const least = (low: number, high: number): number =>
    Math.fround(low + 1e-6 * Math.max(1, Math.abs(low), Math.abs(high)) * 1.0001);
  const f = Math.fround;

  test("pairs that crossed or touch are widened from the lower one, others stay", () => {
    const [lower, upper] = [
      [0, 1, -5, 0.25],
      [1, 1, -6, 0.25],
    ];
    const [low, high] = separate(lower, upper, 1);
    expect(low).toEqual(lower);
    expect(high).toEqual([1, least(1, 1), least(-5, -6), least(0.25, 0.25)]);
  });

  test("one pair in one tensor, and the range of offsets", () => {
    expect(separate([2, 1], null, 0)).toEqual([[2, least(2, 1)], null]);
    expect(separate([2, 3], null, 0)).toEqual([[2, 3], null]);
    expect(separate([4, 5, 6], [-1], 2)).toEqual([[4, 5, 6], [f(1e-6)]]);
    expect(separate([4, 5, 6], [0.5], 2)).toEqual([[4, 5, 6], [0.5]]);
  });
});
