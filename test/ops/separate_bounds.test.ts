/** separateBounds: pairs and ranges of many quantisers in one call, as each alone. */
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { bytesOf, fastBackends, on, random } from "./harness.ts";

describe.each(["reference", ...fastBackends])("bounds kept apart on %s", (backend) => {
  const separate = (lower: number[][], upper: number[][], ranges: number[][] = []) => {
    const lists = [lower, upper, ranges].map((list) => list.map((a) => Float32Array.from(a)));
    on(backend, () => native().separateBounds(lists[0], lists[1], lists[2]));
    return lists.map((list) => list.map((a) => [...a]));
  };
  const least = (low: number, high: number): number =>
    Math.fround(low + 1e-6 * Math.max(1, Math.abs(low), Math.abs(high)) * 1.0001);

  test("pairs that crossed or touch are widened from the lower one, others stay", () => {
    const lower = [[0, 1, -5, 0.25], [2], [2]];
    const upper = [[1, 1, -6, 0.25], [1], [3]];
    const [low, high] = separate(lower, upper);
    expect(low).toEqual(lower);
    expect(high).toEqual([[1, least(1, 1), least(-5, -6), least(0.25, 0.25)], [least(2, 1)], [3]]);
  });

  test("a range of offsets is widened to the least one", () => {
    expect(separate([], [], [[-1], [0.5]])[2]).toEqual([[Math.fround(1e-6)], [0.5]]);
  });

  test("900 quantisers in one call end as each alone, and as on the reference", () => {
    const list = (seed: number) =>
      Array.from({ length: 900 }, (_, i) => random(1 + (i % 70), seed + i));
    const run = (name: string, together: boolean) =>
      on(name, () => {
        const [lower, upper, ranges] = [list(1), list(5000), list(9000)];
        if (together) native().separateBounds(lower, upper, ranges);
        else {
          for (let i = 0; i < lower.length; i++) {
            native().separateBounds([lower[i]], [upper[i]], []);
            native().separateBounds([], [], [ranges[i]]);
          }
        }
        return bytesOf(...lower, ...upper, ...ranges);
      });
    const together = run(backend, true);
    expect(together.equals(run(backend, false))).toBe(true);
    expect(together.equals(run("reference", true))).toBe(true);
    expect(together.equals(bytesOf(...list(1), ...list(5000), ...list(9000)))).toBe(false);
  });

  test("lists that do not fit together are refused", () => {
    const one = new Float32Array(1);
    expect(() => native().separateBounds([one], [], [])).toThrow(/separate_bounds: needs lower/);
    expect(() => native().separateBounds([one], [new Float32Array(2)], [])).toThrow(/needs/);
    expect(() => native().separateBounds([one], [null as never], [])).toThrow(/no gaps/);
    expect(() => native().separateBounds(one as never, [one], [])).toThrow(/array of tensors/);
  });
});
