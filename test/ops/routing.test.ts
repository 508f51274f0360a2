import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import type { F32, I32 } from "../../lib/binding.ts";
import { dot, fastBackends, finiteDifferenceError, on, random } from "./harness.ts";
import { relativeError, zeros } from "./harness.ts";
import { gumbelNoise, philox } from "./philox_oracle.ts";

const ARGMAX = 0;
const SAMPLED = 1;
const everywhere = ["reference", ...fastBackends];

function route(
  logits: F32,
  batch: number,
  tokens: number,
  count: number,
  mode: number,
  seed = 1,
  tile = 0,
  layer = 0,
  first = 0,
): I32 {
  const classes = new Int32Array(batch * tokens).fill(-1);
  native().route(logits, classes, batch, tokens, count, mode, seed, tile, layer, first);
  return classes;
}

/** Byte for byte, which is quicker to establish than by walking the values. */
function sameBytes(a: F32 | I32, b: F32 | I32): boolean {
  return Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;
}

/** `tokens` rows of the same logits. */
function repeated(row: readonly number[], tokens: number): F32 {
  return Float32Array.from({ length: tokens * row.length }, (_, i) => row[i % row.length]);
}

test("the oracle's Philox4x32-10 gives the published words for zero and all-ones input", () => {
  const hex = (words: bigint[]) => words.map((w) => w.toString(16));
  expect(hex(philox([0n, 0n, 0n, 0n], [0n, 0n]))).toEqual([
    "6627e8d5",
    "e169c58d",
    "bc57ac4c",
    "9b00dbd8",
  ]);
  const ones = 0xffffffffn;
  expect(hex(philox([ones, ones, ones, ones], [ones, ones]))).toEqual([
    "408f276d",
    "41c83b0e",
    "a20bc7c6",
    "6d5451fd",
  ]);
});

test("the noise has the mean and the variance of a Gumbel variable", () => {
  const noise = Array.from({ length: 150 }, (_, token) => gumbelNoise(7, 1, 2, token, 64)).flat();
  const mean = noise.reduce((a, b) => a + b) / noise.length;
  const variance = noise.reduce((a, b) => a + (b - mean) ** 2, 0) / noise.length;
  expect(Math.abs(mean - 0.5772157)).toBeLessThan(0.05);
  expect(Math.abs(variance - Math.PI ** 2 / 6)).toBeLessThan(0.15);
});

describe.each(everywhere)("routing on %s", (backend) => {
  test("the class is the argmax of logits plus the noise of (seed, tile + sample, layer, token)", () => {
    const [seed, tile, layer] = [2 ** 40 + 12345, 2 ** 35 + 6, 19];
    for (const [tokens, count] of [
      [40, 64],
      [13, 7],
      [5, 150],
    ]) {
      const logits = random(2 * tokens * count, 1, -1, 1);
      const classes = on(backend, () =>
        route(logits, 2, tokens, count, SAMPLED, seed, tile, layer),
      );
      const expected = Array.from(classes, (_, n) => {
        const sample = Math.floor(n / tokens);
        const noise = gumbelNoise(seed, tile + sample, layer, n % tokens, count);
        const total = noise.map((x, k) => x + logits[n * count + k]);
        return total.indexOf(Math.max(...total));
      });
      expect([...classes]).toEqual(expected);
    }
  });

  test("argmax takes the largest logit, the first among equals", () => {
    const logits = Float32Array.of(0, 3, 1, 3, 2, 2, 2, 2, -5, -4, -9, -4);
    expect([...on(backend, () => route(logits, 1, 3, 4, ARGMAX))]).toEqual([1, 0, 1]);
  });

  test("sampled classes follow the softmax of the logits (chi-square)", () => {
    const row = [0.3, -1, 1.2, 0, 2, -0.4, 0.9];
    const tokens = 20000;
    const e = row.map(Math.exp);
    const total = e.reduce((a, b) => a + b);
    const classes = on(backend, () => route(repeated(row, tokens), 1, tokens, 7, SAMPLED, 3));
    const counts = row.map((_, k) => classes.filter((c) => c === k).length);
    const chiSquare = counts.reduce((sum, seen, k) => {
      const expected = (tokens * e[k]) / total;
      return sum + (seen - expected) ** 2 / expected;
    }, 0);
    expect(chiSquare).toBeLessThan(22.5); // 6 degrees of freedom: exceeded once in 1000 seeds
  });

  test("differences of noise are logistic at every threshold", () => {
    // Two classes: class 0 wins where n0 - n1 > t. The difference of two Gumbel variables is
    // logistic, so its distribution function is known at every t.
    const tokens = 20000;
    for (const t of [-3, -1, 0, 2, 5]) {
      const classes = on(backend, () =>
        route(repeated([-t, 0], tokens), 1, tokens, 2, SAMPLED, 17),
      );
      const share = classes.filter((c) => c === 0).length / tokens;
      const expected = 1 / (1 + Math.exp(t));
      const deviation = Math.sqrt((expected * (1 - expected)) / tokens);
      expect(Math.abs(share - expected)).toBeLessThan(3.5 * deviation);
    }
  });

  test("seed, tile and layer each change the draw; the sample of a batch counts as the next tile", () => {
    const flat = zeros(600 * 16);
    const draw = (seed: number, tile: number, layer: number) =>
      on(backend, () => route(flat, 2, 300, 16, SAMPLED, seed, tile, layer));
    const base = draw(1, 0, 0);
    for (const other of [
      draw(2, 0, 0),
      draw(1, 2 ** 40, 0),
      draw(1, 0, 1),
      draw(1 + 2 ** 33, 0, 0),
    ]) {
      const same = base.filter((c, i) => c === other[i]).length / base.length;
      expect(same).toBeLessThan(0.13); // 1/16 by chance
    }
    expect(draw(1, 1, 0).subarray(0, 300)).toEqual(base.subarray(300));
    expect(draw(1, 0, 0)).toEqual(base);
  });

  test("a NaN or infinite logit still gives a class in range", () => {
    const bad = Float32Array.of(Number.NaN, 1, 2, 0, Number.NaN, 5, Number.POSITIVE_INFINITY, 0, 1);
    const classes = on(backend, () => route(bad, 1, 3, 3, SAMPLED));
    expect(classes.every((c) => c >= 0 && c < 3)).toBe(true);
    expect(classes).toEqual(on("reference", () => route(bad, 1, 3, 3, SAMPLED)));
  });

  test("the class of the largest of 64 equal logits is the one that the noise favours everywhere", () => {
    const expected = on("reference", () => route(zeros(640), 1, 10, 64, SAMPLED, 5));
    expect(on(backend, () => route(zeros(640), 1, 10, 64, SAMPLED, 5))).toEqual(expected);
  });
});

describe.each(fastBackends)("routing on %s against the reference", (backend) => {
  test.each([
    [1, 1, 1],
    [2, 37, 5],
    [1, 301, 16],
    [1, 300, 64],
    [3, 19, 131],
  ])("equal classes for %i x %i tokens of %i classes", (batch, tokens, count) => {
    const logits = random(batch * tokens * count, 4, -2, 2);
    for (const mode of [ARGMAX, SAMPLED]) {
      const expected = on("reference", () => route(logits, batch, tokens, count, mode, 99, 7, 13));
      const classes = on(backend, () => route(logits, batch, tokens, count, mode, 99, 7, 13));
      expect(sameBytes(classes, expected)).toBe(true);
    }
  });

  test("one thread and two give the same classes", () => {
    const logits = random(2000 * 64, 4);
    const before = native().threads();
    const [one, two] = [1, 2].map((threads) => {
      native().threads(threads);
      return on(backend, () => route(logits, 1, 2000, 64, SAMPLED));
    });
    native().threads(before);
    expect(sameBytes(two, one)).toBe(true);
  });
});

function routeGrad(
  logits: F32,
  pool: F32,
  gprompt: F32,
  sizes: readonly [number, number, number, number],
  mode: number,
): F32 {
  const glogits = zeros(logits.length);
  native().routeGrad(logits, pool, gprompt, glogits, ...sizes, mode, 11, 3, 2);
  return glogits;
}

describe("the straight-through gradient of the choice", () => {
  test("is that of the soft choice sum_k s_k pool_k (central differences, no noise)", () => {
    const sizes = [1, 4, 5, 3] as const;
    const logits = random(20, 1, -2, 2);
    const pool = random(15, 2);
    const gprompt = random(12, 3);
    const loss = () => {
      let total = 0;
      for (let n = 0; n < 4; n++) {
        const e = Array.from(logits.subarray(5 * n, 5 * n + 5), Math.exp);
        const sum = e.reduce((a, b) => a + b);
        for (let k = 0; k < 5; k++) {
          const row = pool.subarray(3 * k, 3 * k + 3);
          total += (e[k] / sum) * dot(row, gprompt.subarray(3 * n, 3 * n + 3));
        }
      }
      return total;
    };
    const g = on("reference", () => routeGrad(logits, pool, gprompt, sizes, ARGMAX));
    const positions = Array.from({ length: 20 }, (_, i) => i);
    expect(finiteDifferenceError(loss, logits, g, positions, 1e-3)).toBeLessThan(1e-4);
  });

  test("with noise it differs, and every row still sums to zero", () => {
    const sizes = [2, 30, 64, 8] as const;
    const [logits, pool, gprompt] = [random(3840, 1), random(512, 2), random(480, 3)];
    const plain = on("reference", () => routeGrad(logits, pool, gprompt, sizes, ARGMAX));
    const noisy = on("reference", () => routeGrad(logits, pool, gprompt, sizes, SAMPLED));
    expect(relativeError(noisy, plain)).toBeGreaterThan(0.1);
    for (let n = 0; n < 60; n++) {
      const row = noisy.subarray(64 * n, 64 * n + 64);
      expect(Math.abs(row.reduce((a, b) => a + b))).toBeLessThan(1e-6);
    }
  });

  test.each(fastBackends)("%s equals the reference", (backend) => {
    for (const [batch, tokens, count, states] of [
      [1, 1, 1, 1],
      [2, 17, 5, 3],
      [1, 300, 64, 8],
      [1, 40, 67, 9],
    ] as const) {
      const logits = random(batch * tokens * count, 1, -3, 3);
      const pool = random(count * states, 2);
      const gprompt = random(batch * tokens * states, 3);
      for (const mode of [ARGMAX, SAMPLED]) {
        const run = () => routeGrad(logits, pool, gprompt, [batch, tokens, count, states], mode);
        const expected = on("reference", run);
        const g = on(backend, run);
        // A single class has no gradient; what rounding leaves of it is not compared.
        if (count > 1) expect(relativeError(g, expected)).toBeLessThan(1e-5);
        else expect(Math.abs(g[0])).toBeLessThan(1e-6);
      }
    }
  });
});

test("tokens that are routed in parts get the classes of the whole", () => {
  const logits = random(40 * 64, 77);
  for (const backend of ["reference", ...fastBackends]) {
    on(backend, () => {
      const whole = route(logits, 1, 40, 64, SAMPLED, 5, 2, 1);
      const part = route(logits.slice(13 * 64), 1, 27, 64, SAMPLED, 5, 2, 1, 13);
      expect(part).toEqual(whole.slice(13));
    });
  }
});
