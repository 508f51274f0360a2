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

type Size = readonly [batch: number, height: number, width: number, channels: number];

function pad(
  x: F32,
  mean: F32,
  [b, h, w, c]: Size,
  height: number,
  width: number,
  reflect = 0,
): F32 {
  const y = zeros(b * height * width * c);
  native().padImage(x, mean, y, b, h, w, height, width, c, reflect);
  return y;
}

function shuffle(x: F32, mean: F32, [b, h, w, c]: Size, s: number, oh: number, ow: number): F32 {
  const y = zeros(b * oh * ow * c);
  native().pixelShuffle(x, mean, y, b, h, w, c, s, oh, ow);
  return y;
}

function unshuffle(gy: F32, [b, h, w, c]: Size, s: number, oh: number, ow: number): F32 {
  const gx = zeros(b * h * w * c * s * s).fill(NaN);
  native().pixelShuffleGrad(gy, gx, b, h, w, c, s, oh, ow);
  return gx;
}

const shuffles: readonly (readonly [Size, number, number, number])[] = [
  [[1, 1, 1, 1], 1, 1, 1],
  [[2, 5, 7, 3], 2, 10, 14],
  [[2, 5, 7, 3], 3, 13, 20],
  [[1, 8, 9, 3], 4, 29, 33],
  [[1, 61, 67, 3], 4, 244, 268],
  [[2, 4, 3, 5], 2, 7, 5],
  [[1, 3, 3, 2], 5, 4, 15],
];

describe("padding", () => {
  test("the last rows and columns are mirrored, edge repeated, minus the mean", () => {
    const x = Float32Array.of(1, 2, 3, 4, 5, 6);
    const y = on("reference", () => pad(x, Float32Array.of(1), [1, 2, 3, 1], 4, 5));
    expect([...y]).toEqual([0, 1, 2, 2, 1, 3, 4, 5, 5, 4, 3, 4, 5, 5, 4, 0, 1, 2, 2, 1]);
  });

  test("with reflection the edge comes once, and there are at most side - 1 rows to give", () => {
    const x = Float32Array.of(1, 2, 3, 4, 5, 6);
    const mean = Float32Array.of(1);
    const y = on("reference", () => pad(x, mean, [1, 2, 3, 1], 3, 5, 1));
    expect([...y]).toEqual([0, 1, 2, 1, 0, 3, 4, 5, 4, 3, 0, 1, 2, 1, 0]);
    expect(() => pad(x, mean, [1, 2, 3, 1], 4, 5, 1)).toThrow(/padded_height/);
    expect(() => pad(x, mean, [1, 2, 3, 1], 3, 6, 1)).toThrow(/padded_width/);
    expect(() => pad(x, mean, [1, 2, 3, 1], 3, 5, 2)).toThrow(/reflect/);
  });

  test.each(fastBackends)("%s pads exactly as the reference", (backend) => {
    const cases: readonly (readonly [Size, number, number])[] = [
      [[1, 1, 1, 1], 2, 2],
      [[2, 7, 5, 3], 14, 10],
      [[1, 61, 67, 3], 64, 80],
      [[3, 4, 6, 2], 4, 6],
      [[1, 3, 2, 19], 4, 3],
    ];
    for (const [size, height, width] of cases) {
      const x = random(size[0] * size[1] * size[2] * size[3], 5);
      const mean = random(size[3], 6);
      const run = () => pad(x, mean, size, height, width);
      expect(relativeError(on(backend, run), on("reference", run))).toBe(0);
      const [most, widest] = [2 * size[1] - 1, 2 * size[2] - 1];
      const reflect = () => pad(x, mean, size, Math.min(height, most), Math.min(width, widest), 1);
      expect(relativeError(on(backend, reflect), on("reference", reflect))).toBe(0);
    }
  });
});

describe("pixel shuffle", () => {
  test("channel c*s*s + dy*s + dx of a token becomes its pixel (dy, dx), plus the mean", () => {
    const x = Float32Array.from({ length: 16 }, (_, i) => i); // 1 x 2 tokens of 2 x 2 x 2
    const mean = Float32Array.of(100, 200);
    const y = on("reference", () => shuffle(x, mean, [1, 1, 2, 2], 2, 2, 4));
    expect([...y]).toEqual([
      100, 204, 101, 205, 108, 212, 109, 213, 102, 206, 103, 207, 110, 214, 111, 215,
    ]);
  });

  test.each(fastBackends)("%s moves exactly what the reference moves, both ways", (backend) => {
    for (const [size, s, oh, ow] of shuffles) {
      const [b, h, w, c] = size;
      const x = random(b * h * w * c * s * s, 7);
      const mean = random(c, 8);
      const gy = random(b * oh * ow * c, 9);
      const run = () => [shuffle(x, mean, size, s, oh, ow), unshuffle(gy, size, s, oh, ow)];
      const reference = on("reference", run);
      const errors = on(backend, run).map((fast, i) => relativeError(fast, reference[i]));
      expect(errors, `${size} scale ${s}`).toEqual([0, 0]);
    }
  });

  test("the gradient is that of central differences, 0 where the crop dropped a pixel", () => {
    const size: Size = [1, 2, 2, 3];
    const [x, mean, gy] = [random(2 * 2 * 12, 1), random(3, 2), random(3 * 3 * 3, 3)];
    on("reference", () => {
      const gx = unshuffle(gy, size, 2, 3, 3);
      const loss = (): number => dot(shuffle(x, mean, size, 2, 3, 3), gy);
      const positions = Array.from({ length: x.length }, (_, i) => i);
      expect(finiteDifferenceError(loss, x, gx, positions)).toBeLessThan(1e-4);
      expect(gx.filter((value) => value === 0)).toHaveLength(48 - 27);
      expect(relativeError(gx.filter((value) => value !== 0).sort(), gy.slice().sort())).toBe(0);
    });
  });
});
