/** conv2d and its gradients: fast against reference, gradients, borders, threads. */
import { describe, expect, test } from "vitest";
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

/** batch, height, width, in, out, kernel. */
const SHAPES = [
  [1, 1, 1, 1, 1, 3],
  [1, 1, 1, 2, 3, 5],
  [0, 4, 4, 3, 5, 3],
  [2, 5, 7, 3, 48, 3],
  [1, 9, 11, 48, 12, 3],
  [1, 2, 70, 19, 3, 5],
  [3, 2, 3, 5, 67, 1],
  [2, 13, 4, 7, 17, 5],
  [1, 8, 17, 48, 48, 3],
] as const;

type Shape = readonly [number, number, number, number, number, number];

function makeCase([batch, height, width, inputs, outputs, kernel]: Shape, seed: number) {
  const pixels = batch * height * width;
  return {
    x: random(pixels * inputs, seed),
    weight: random(outputs * inputs * kernel * kernel, seed + 1),
    bias: random(outputs, seed + 2),
    gy: random(pixels * outputs, seed + 3),
  };
}

/** Every result of the family; a sentinel behind each output must survive. */
function runAll(c: ReturnType<typeof makeCase>, shape: Shape) {
  const guarded = (n: number) => new Float32Array(n + 1).fill(77);
  const y = guarded(c.gy.length);
  const plain = guarded(c.gy.length);
  const gx = guarded(c.x.length);
  const gweight = guarded(c.weight.length);
  const gbias = guarded(c.bias.length);
  native().conv2d(c.x, c.weight, c.bias, y, ...shape);
  native().conv2d(c.x, c.weight, null, plain, ...shape);
  native().conv2dGradInput(c.gy, c.weight, gx, ...shape);
  native().conv2dGradWeight(c.gy, c.x, gweight, gbias, ...shape);
  return { y, plain, gx, gweight, gbias };
}

describe.each(fastBackends)("on %s", (backend) => {
  test.each(SHAPES)(
    "batch %d, %d x %d, in %d, out %d, kernel %d agrees with the reference",
    (...shape) => {
      const c = makeCase(shape, 100 + shape[2]);
      const expected = on("reference", () => runAll(c, shape));
      const got = on(backend, () => runAll(c, shape));
      for (const name of ["y", "plain", "gx", "gweight", "gbias"] as const) {
        const n = expected[name].length - 1;
        const error = relativeError(got[name].subarray(0, n), expected[name].subarray(0, n));
        expect(error, name).toBeLessThanOrEqual(1e-5);
        expect(got[name][n], `the value behind ${name}`).toBe(77);
      }
    },
  );

  test("one and two threads give the same bits", () => {
    const shape: Shape = [3, 37, 61, 5, 19, 3];
    const c = makeCase(shape, 6);
    const one = onThreads(backend, 1, () => runAll(c, shape));
    const two = onThreads(backend, 2, () => runAll(c, shape));
    expect(differingNames(two, one)).toEqual([]);
  });
});

test("a kernel with a single one shifts the image and pads with zeros", () => {
  for (const backend of native().backends()) {
    on(backend, () => {
      const x = Float32Array.of(1, 2, 3, 4, 5, 6); // 2 rows of 3 pixels
      const weight = zeros(9);
      weight[2] = 1; // row above, one to the right
      const y = zeros(6);
      native().conv2d(x, weight, null, y, 1, 2, 3, 1, 1, 3);
      expect([...y]).toEqual([0, 0, 0, 2, 3, 0]);
    });
  }
});

test("the images of a batch do not see each other", () => {
  for (const backend of native().backends()) {
    on(backend, () => {
      const shape: Shape = [2, 3, 4, 2, 3, 5];
      const c = makeCase(shape, 8);
      const both = zeros(c.gy.length);
      native().conv2d(c.x, c.weight, c.bias, both, ...shape);
      const second = zeros(c.gy.length / 2);
      const half = c.x.slice(c.x.length / 2);
      native().conv2d(half, c.weight, c.bias, second, 1, 3, 4, 2, 3, 5);
      expect(both.slice(second.length)).toEqual(second);
    });
  }
});

test("gradients of conv2d match central differences", () => {
  const shape: Shape = [2, 3, 4, 2, 3, 3];
  const c = makeCase(shape, 21);
  on("reference", () => {
    const { gx, gweight, gbias } = runAll(c, shape);
    const y = zeros(c.gy.length);
    const loss = () => {
      native().conv2d(c.x, c.weight, c.bias, y, ...shape);
      return dot(y, c.gy);
    };
    const all = (n: number) => Array.from({ length: n }, (_, i) => i);
    expect(finiteDifferenceError(loss, c.x, gx, all(c.x.length))).toBeLessThan(1e-4);
    expect(finiteDifferenceError(loss, c.weight, gweight, all(c.weight.length))).toBeLessThan(1e-4);
    expect(finiteDifferenceError(loss, c.bias, gbias, all(3))).toBeLessThan(1e-4);
  });
});

test("an even kernel is refused", () => {
  const tensor = zeros(64);
  expect(() => native().conv2d(tensor, tensor, null, zeros(64), 1, 4, 4, 1, 1, 2)).toThrow(
    /conv2d.*kernel/,
  );
});
