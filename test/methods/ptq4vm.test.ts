/** Ranges by token, smoothing and the direction loss of PTQ4VM. */
import { expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { jointBounds, dequantize } from "../../lib/quant/codes.ts";
import { powerGrid, symmetricPowerGrid } from "../../lib/quant/ranges.ts";
import { tokenCodes, tokenPlaces } from "../../lib/quant/token_ranges.ts";
import { Memory } from "../../lib/tensor.ts";
import { cosineLoss } from "../../lib/train/block_losses.ts";
import { random } from "../ops/harness.ts";

test("places: position in the window in raster order, rank in 64 parts of each sample's sequence", () => {
  const grid = { batch: 2, height: 8, width: 12, window: 4 };
  const window = tokenPlaces("window", grid);
  const rank = tokenPlaces("rank", grid);
  for (let b = 0; b < 2; b++) {
    for (let y = 0; y < 8; y++)
      for (let x = 0; x < 12; x++) {
        const i = b * 96 + y * 12 + x;
        expect(window[i]).toBe((y % 4) * 4 + (x % 4));
        expect(rank[i]).toBe(Math.floor(((y * 12 + x) / 96) * 64));
      }
  }
});

test("a token is coded by the range of its place, whose gradient sums over its tokens", () => {
  const [tokens, channels, bits] = [12, 5, 2];
  const places = Int32Array.from({ length: tokens }, (_, i) => i % 3);
  const x = new Var(random(tokens * channels, 1, -2, 2), [tokens, channels], true);
  const lower = new Var(Float32Array.of(-1, -0.5, -2), [3], true);
  const upper = new Var(Float32Array.of(1, 0.7, 1.5), [3], true);
  const graph = new Graph("recording", new Memory());
  const bounds = { lower, upper, granularity: "token", bits } as const;
  const codes = tokenCodes(graph, x, bounds, places);
  const y = dequantize(graph, codes);
  const weights = random(y.size, 2);
  graph.seed(y, weights);
  graph.backward();
  const [glower, gupper] = [new Float64Array(3), new Float64Array(3)];
  const levels = 2 ** bits - 1;
  x.data.forEach((value, i) => {
    const place = places[Math.floor(i / channels)];
    const [a, b] = [lower.data[place], upper.data[place]];
    const u = ((Math.min(Math.max(value, a), b) - a) / (b - a)) * levels;
    const code = Math.round(u);
    expect(codes.codes[i]).toBe(code);
    expect(y.data[i]).toBeCloseTo(a + ((b - a) * code) / levels, 5);
    const e = (code - u) / levels;
    glower[place] += weights[i] * ((value <= a ? 1 : 0) - e);
    gupper[place] += weights[i] * ((value >= b ? 1 : 0) + e);
  });
  glower.forEach((g, i) => {
    expect(lower.grad![i]).toBeCloseTo(g, 4);
    expect(upper.grad![i]).toBeCloseTo(gupper[i], 4);
  });
  expect(jointBounds(0, 1, 2).granularity).toBe("tensor");
});

test("the direction loss and its gradient, against differences", () => {
  const [rows, channels] = [4, 6];
  const [z, y] = [random(rows * channels, 3), random(rows * channels, 4)];
  const cosines = (v: ArrayLike<number>): number => {
    let total = 0;
    for (let r = 0; r < rows; r++) {
      const part = (a: ArrayLike<number>): number[] =>
        Array.from({ length: channels }, (_, c) => a[r * channels + c]);
      const [p, q] = [part(v), part(y)];
      total += 1 - p.reduce((s, a, c) => s + a * q[c], 0) / Math.hypot(...p) / Math.hypot(...q);
    }
    return total / rows;
  };
  const gradient = new Float32Array(z.length);
  expect(cosineLoss(z, y, channels, gradient)).toBeCloseTo(cosines(z), 6);
  for (let i = 0; i < z.length; i += 5) {
    const [up, down] = [Float64Array.from(z), Float64Array.from(z)];
    up[i] += 1e-4;
    down[i] -= 1e-4;
    expect(gradient[i]).toBeCloseTo((cosines(up) - cosines(down)) / 2e-4, 5);
  }
});

test("grids of ranges take the least mean error to the power 2.4", () => {
  const x = random(300, 8, -1, 2).map((v) => v ** 3);
  const error = (low: number, high: number, bits: number): number => {
    const levels = 2 ** bits - 1;
    return x.reduce((sum, v) => {
      const u = ((Math.min(Math.max(v, low), high) - low) / (high - low)) * levels;
      return sum + Math.abs(v - low - ((high - low) * Math.round(u)) / levels) ** 2.4;
    }, 0);
  };
  const [least, most] = [Math.min(...x), Math.max(...x)];
  const step = (most - least) / 100;
  for (const bits of [2, 4]) {
    const shrinking = Array.from({ length: 50 }, (_, i) =>
      error(least + i * step, most - i * step, bits),
    );
    expect(error(...powerGrid(2.4)(x, bits), bits)).toBeCloseTo(Math.min(...shrinking), 6);
    const [low, high] = symmetricPowerGrid(2.4)(x, bits);
    expect(low / high).toBeCloseTo(-(2 ** (bits - 1)) / (2 ** (bits - 1) - 1), 6);
    for (let i = 1; i <= 100; i++) {
      const top = (most * i) / 100;
      expect(error(low, high, bits)).toBeLessThanOrEqual(
        error((low / high) * top, top, bits) + 1e-9,
      );
    }
  }
});
