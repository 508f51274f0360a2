import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import type { F32, I32 } from "../../lib/binding.ts";
import { fastBackends, on, random, uniform, zeros } from "./harness.ts";

function permutation(n: number, seed: number): I32 {
  const next = uniform(seed);
  const order = Int32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function sameBytes(a: F32, b: F32): boolean {
  return Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;
}

describe.each(["reference", ...fastBackends])("rows on %s", (backend) => {
  test.each([
    [1, 1],
    [7, 3],
    [300, 19],
    [2100, 48],
    [1025, 24],
  ])(
    "gathering %i rows of %i takes row index[i], and scattering puts it back",
    (rows, channels) => {
      const x = random(rows * channels, 1);
      const index = permutation(rows, 2);
      const [gathered, back] = [zeros(x.length), zeros(x.length)];
      on(backend, () => {
        native().gatherRows(x, index, gathered, rows, channels);
        native().scatterRows(gathered, index, back, rows, channels);
      });
      const expected = x.map((_, at) => {
        const i = Math.floor(at / channels);
        return x[index[i] * channels + (at % channels)];
      });
      expect(sameBytes(gathered, expected)).toBe(true);
      expect(sameBytes(back, x)).toBe(true);
    },
  );

  test("an index outside the tensor skips its row and touches nothing else", () => {
    const x = Float32Array.of(1, 2, 3, 4, 5, 6);
    const index = Int32Array.of(2, -1, 3);
    const y = new Float32Array(6).fill(9);
    on(backend, () => native().gatherRows(x, index, y, 3, 2));
    expect([...y]).toEqual([5, 6, 9, 9, 9, 9]);
    y.fill(9);
    on(backend, () => native().scatterRows(x, index, y, 3, 2));
    expect([...y]).toEqual([9, 9, 9, 9, 1, 2]);
  });
});
