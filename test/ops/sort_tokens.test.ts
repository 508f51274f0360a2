import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import type { F32, I32 } from "../../lib/binding.ts";
import { dot, fastBackends, on, random, uniform, zeros } from "./harness.ts";

const everywhere = ["reference", ...fastBackends];

/** Byte for byte, which is quicker to establish than by walking the values. */
function sameBytes(a: F32 | I32, b: F32 | I32): boolean {
  return Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;
}

function sortTokens(
  classes: I32,
  batch: number,
  tokens: number,
  count: number,
  inverse: I32 | null = null,
): I32 {
  const order = new Int32Array(classes.length).fill(-1);
  native().sortTokens(classes, order, inverse, batch, tokens, count);
  return order;
}

function draws(n: number, count: number, seed: number): I32 {
  const next = uniform(seed);
  return Int32Array.from({ length: n }, () => Math.floor(next() * count));
}

describe.each(everywhere)("sorting tokens on %s", (backend) => {
  test.each([
    [1, 1, 1],
    [3, 257, 7],
    [2, 9000, 64],
    [1, 4096, 3],
  ])(
    "%i x %i tokens of %i classes: a permutation per sample, by class, ties in order",
    (batch, tokens, count) => {
      const classes = draws(batch * tokens, count, 8);
      const order = on(backend, () => sortTokens(classes, batch, tokens, count));
      for (let b = 0; b < batch; b++) {
        const expected = Int32Array.from({ length: tokens }, (_, n) => b * tokens + n).sort(
          (i, j) => classes[i] - classes[j] || i - j,
        );
        expect(sameBytes(order.slice(b * tokens, (b + 1) * tokens), expected)).toBe(true);
      }
    },
  );

  test("the inverse says where each row went", () => {
    const classes = draws(2 * 4500, 64, 9);
    const inverse = new Int32Array(9000).fill(-1);
    const order = on(backend, () => sortTokens(classes, 2, 4500, 64, inverse));
    expect(order.every((row, i) => inverse[row] === i)).toBe(true);
  });

  test("classes out of range count as the nearest one", () => {
    const order = on(backend, () => sortTokens(Int32Array.of(9, -3, 1, 0, 1 << 30), 1, 5, 2));
    expect([...order]).toEqual([1, 3, 0, 2, 4]);
  });

  test("the prompt of a token's class is added to its row", () => {
    const [c, pool, classes] = [random(500 * 8, 1), random(64 * 8, 2), draws(500, 64, 3)];
    classes[0] = -5;
    classes[1] = 99;
    const y = zeros(4000);
    on(backend, () => native().addPrompt(c, pool, classes, y, 500, 64, 8));
    const clamp = (k: number) => Math.min(Math.max(k, 0), 63);
    const expected = c.map((x, i) => x + pool[clamp(classes[i >> 3]) * 8 + (i & 7)]);
    expect(sameBytes(y, expected)).toBe(true);
  });

  test("the pool's gradient is the adjoint of adding it, on any number of threads", () => {
    for (const [rows, count, states] of [
      [1, 1, 1],
      [999, 7, 3],
      [2000, 64, 8],
    ]) {
      const [gy, pool] = [random(rows * states, 1), random(count * states, 2)];
      const classes = draws(rows, count, 3);
      const y = zeros(rows * states);
      const before = native().threads();
      const [one, two] = [1, 2].map((threads) => {
        native().threads(threads);
        const gpool = zeros(count * states);
        on(backend, () => native().addPromptGrad(gy, classes, gpool, rows, count, states));
        return gpool;
      });
      native().threads(before);
      const added = zeros(rows * states);
      on(backend, () => native().addPrompt(y, pool, classes, added, rows, count, states));
      expect(dot(one, pool)).toBeCloseTo(dot(gy, added), 3);
      expect(sameBytes(two, one)).toBe(true);
    }
  });
});
