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

const shapes: readonly (readonly [number, number])[] = [
  [1, 1],
  [3, 2],
  [7, 19],
  [5, 24],
  [1025, 48],
  [67, 60],
  [13, 131],
  [4, 180],
];

function forward(x: F32, weight: F32, bias: F32, rows: number, channels: number): F32 {
  const y = zeros(rows * channels);
  native().layerNorm(x, weight, bias, y, rows, channels);
  return y;
}

function backward(x: F32, weight: F32, gy: F32, rows: number, channels: number) {
  const gx = zeros(rows * channels);
  const gweight = zeros(channels);
  const gbias = zeros(channels);
  native().layerNormGrad(x, weight, gy, gx, gweight, gbias, rows, channels);
  return { gx, gweight, gbias };
}

describe("layer norm", () => {
  test("a row comes out with mean 0 and variance 1 under unit weight and no bias", () => {
    const x = random(48, 1, 2, 5);
    const y = on("reference", () => forward(x, zeros(48).fill(1), zeros(48), 1, 48));
    const mean = y.reduce((a, b) => a + b, 0) / 48;
    const variance = y.reduce((a, b) => a + b * b, 0) / 48;
    expect(Math.abs(mean)).toBeLessThan(1e-6);
    expect(Math.abs(variance - 1)).toBeLessThan(1e-4);
  });

  test("weight, bias and the epsilon of 1e-5 enter as the formula says", () => {
    const y = on("reference", () =>
      forward(Float32Array.of(0, 0.002), Float32Array.of(2, 3), Float32Array.of(10, 20), 1, 2),
    );
    const h = 0.001 / Math.sqrt(1e-6 + 1e-5);
    expect(relativeError(y, [10 - 2 * h, 20 + 3 * h])).toBeLessThan(1e-7);
  });

  test.each(fastBackends)("%s agrees with the reference, forward and backward", (backend) => {
    for (const [rows, channels] of shapes) {
      const x = random(rows * channels, 11 + rows, -2, 3);
      const weight = random(channels, 12, 0.5, 1.5);
      const bias = random(channels, 13);
      const gy = random(rows * channels, 14);
      const label = `${rows} x ${channels}`;
      const y = on("reference", () => forward(x, weight, bias, rows, channels));
      const fast = on(backend, () => forward(x, weight, bias, rows, channels));
      expect(relativeError(fast, y), label).toBeLessThan(1e-5);
      const g = on("reference", () => backward(x, weight, gy, rows, channels));
      const f = on(backend, () => backward(x, weight, gy, rows, channels));
      // With 1 or 2 channels gx is a difference of equal terms: compare with their size, |gy r|.
      const scale = channels < 3 ? 400 : 1;
      expect(relativeError(f.gx, g.gx) / scale, `gx ${label}`).toBeLessThan(1e-5);
      expect(relativeError(f.gweight, g.gweight), `gweight ${label}`).toBeLessThan(1e-5);
      expect(relativeError(f.gbias, g.gbias), `gbias ${label}`).toBeLessThan(1e-5);
    }
  });

  test.each(fastBackends)(
    "%s keeps its digits where the mean is far above the deviation",
    (backend) => {
      const x = random(33 * 48, 21, 999.5, 1000.5);
      const weight = zeros(48).fill(1);
      const y = on("reference", () => forward(x, weight, zeros(48), 33, 48));
      const fast = on(backend, () => forward(x, weight, zeros(48), 33, 48));
      expect(relativeError(fast, y)).toBeLessThan(5e-4); // the mean itself has 24 bits
    },
  );

  test("the gradients are those of central differences", () => {
    const [rows, channels] = [3, 11];
    const x = random(rows * channels, 31);
    const weight = random(channels, 32, 0.5, 1.5);
    const bias = random(channels, 33);
    const gy = random(rows * channels, 34);
    on("reference", () => {
      const loss = (): number => dot(forward(x, weight, bias, rows, channels), gy);
      const g = backward(x, weight, gy, rows, channels);
      const all = Array.from({ length: rows * channels }, (_, i) => i);
      const some = all.slice(0, channels);
      expect(finiteDifferenceError(loss, x, g.gx, all, 2e-3)).toBeLessThan(1e-3);
      expect(finiteDifferenceError(loss, weight, g.gweight, some)).toBeLessThan(1e-4);
      expect(finiteDifferenceError(loss, bias, g.gbias, some)).toBeLessThan(1e-4);
    });
  });

  test.each(fastBackends)("%s gives the same bits on one thread and on two", (backend) => {
    const [rows, channels] = [2051, 48];
    const x = random(rows * channels, 41);
    const gy = random(rows * channels, 42);
    const weight = random(channels, 43);
    const before = native().threads();
    try {
      const [one, two] = [1, 2].map((count) => {
        native().threads(count);
        return on(backend, () => {
          const g = backward(x, weight, gy, rows, channels);
          return [forward(x, weight, weight, rows, channels), g.gx, g.gweight, g.gbias];
        });
      });
      expect(two.map((output, i) => relativeError(output, one[i]))).toEqual([0, 0, 0, 0]);
    } finally {
      native().threads(before);
    }
  });
});
