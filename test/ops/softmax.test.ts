/** Softmax of the few logits of a gate, and its gradient. */
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { bytesOf, dot, fastBackends, finiteDifferenceError, on, random, zeros } from "./harness.ts";

describe.each(["reference", ...fastBackends])("softmax on %s", (backend) => {
  test.each([
    [1, 4],
    [7, 3],
    [70, 1],
    [65, 17],
  ])("%i rows of %i: shares of one, those of doubles rounded once", (rows, columns) => {
    const x = random(rows * columns, 1, -30, 30);
    const y = zeros(x.length);
    on(backend, () => native().softmax([x], [y], columns));
    for (let row = 0; row < rows; row++) {
      const logits = [...x.subarray(row * columns, (row + 1) * columns)];
      const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
      const total = powers.reduce((a, b) => a + b, 0);
      const wanted = powers.map((power) => Math.fround(power / total));
      expect([...y.subarray(row * columns, (row + 1) * columns)]).toEqual(wanted);
    }
  });

  test("900 tensors in one call get the bits of each alone", () => {
    const list = (seed: number) =>
      Array.from({ length: 900 }, (_, i) => random(4 * (i % 40), seed + i, -9, 9));
    const [x, gy] = [list(1), list(1000)];
    const run = (together: boolean) => {
      const [y, gx] = [x.map((a) => zeros(a.length)), x.map((a) => zeros(a.length))];
      on(backend, () => {
        if (together) {
          native().softmax(x, y, 4);
          native().softmaxGrad(y, gy, gx, 4);
        } else {
          for (let i = 0; i < x.length; i++) {
            native().softmax([x[i]], [y[i]], 4);
            native().softmaxGrad([y[i]], [gy[i]], [gx[i]], 4);
          }
        }
      });
      return bytesOf(...y, ...gx);
    };
    expect(run(true).equals(run(false))).toBe(true);
  });

  test("its gradient is that of finite differences", () => {
    const columns = 4;
    const [x, gy, y, gx] = [random(20, 2), random(20, 3), zeros(20), zeros(20)];
    const forward = (): number => {
      on(backend, () => native().softmax([x], [y], columns));
      return dot(y, gy);
    };
    forward();
    on(backend, () => native().softmaxGrad([y], [gy], [gx], columns));
    const all = Array.from({ length: 20 }, (_, i) => i);
    expect(finiteDifferenceError(forward, x, gx, all)).toBeLessThan(1e-3);
  });
});
