/** merge_rectifiers and its gradients: goldens, fast against reference, central differences. */
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { hasTestData } from "../data.ts";
import {
  bytesOf,
  dot,
  fastBackends,
  finiteDifferenceError,
  golden,
  on,
  random,
  relativeError,
  zeros,
} from "./harness.ts";
import { differingNames, onThreads } from "./threads.ts";

/** experts, rank, in, out. */
const SHAPES = [
  [1, 1, 1, 1],
  [4, 8, 48, 48],
  [4, 8, 48, 144],
  [3, 5, 19, 23],
  [2, 7, 101, 3],
  [4, 32, 24, 48],
] as const;

type Shape = readonly [number, number, number, number];

function makeCase([experts, rank, inputs, outputs]: Shape, seed: number) {
  return {
    weight: random(outputs * inputs, seed),
    a: random(experts * rank * inputs, seed + 1),
    b: random(experts * outputs * rank, seed + 2),
    gates: random(experts, seed + 3, 0, 1),
    gmerged: random(outputs * inputs, seed + 4),
  };
}

type Case = ReturnType<typeof makeCase>;

function runAll(c: Case, shape: Shape) {
  const guarded = (n: number) => new Float32Array(n + 1).fill(77);
  const merged = guarded(c.weight.length);
  const ga = guarded(c.a.length);
  const gb = guarded(c.b.length);
  const ggates = guarded(c.gates.length);
  const [a, b, gates] = [[c.a], [c.b], [c.gates]];
  const [experts, rank] = shape;
  native().mergeRectifiers([c.weight], a, b, gates, [merged], experts, rank);
  native().mergeRectifiersGrad([c.gmerged], a, b, gates, [ga], [gb], [ggates], experts, rank);
  return { merged, ga, gb, ggates };
}

const NAMES = ["merged", "ga", "gb", "ggates"] as const;

describe.each(fastBackends)("on %s", (backend) => {
  test.each(SHAPES)("%d experts of rank %d, in %d, out %d agree with the reference", (...shape) => {
    const c = makeCase(shape, 60 + shape[2]);
    const expected = on("reference", () => runAll(c, shape));
    const got = on(backend, () => runAll(c, shape));
    for (const name of NAMES) {
      const n = expected[name].length - 1;
      const error = relativeError(got[name].subarray(0, n), expected[name].subarray(0, n));
      expect(error, name).toBeLessThanOrEqual(1e-5);
      expect(got[name][n], `the value behind ${name}`).toBe(77);
    }
  });

  test("one and two threads give the same bits", () => {
    const c = makeCase([4, 8, 48, 144], 2);
    const one = onThreads(backend, 1, () => runAll(c, [4, 8, 48, 144]));
    const two = onThreads(backend, 2, () => runAll(c, [4, 8, 48, 144]));
    expect(differingNames(two, one)).toEqual([]);
  });
});

describe.each(native().backends())("on %s", (backend) => {
  test("700 groups in one call get the bits of each alone", () => {
    const sides = [
      [48, 48],
      [24, 48],
      [5, 1],
      [1, 7],
      [19, 23],
    ] as const;
    const cases = Array.from({ length: 700 }, (_, i) => makeCase([4, 2, ...sides[i % 5]], i));
    const run = (size: number) =>
      on(backend, () => {
        const results: Float32Array<ArrayBuffer>[] = [];
        for (let first = 0; first < cases.length; first += size) {
          const some = cases.slice(first, first + size);
          const like = (name: keyof Case) => some.map((c) => zeros(c[name].length));
          const of = (name: keyof Case) => some.map((c) => c[name]);
          const [merged, ga, gb, ggates] = [like("weight"), like("a"), like("b"), like("gates")];
          const given = [of("a"), of("b"), of("gates")] as const;
          native().mergeRectifiers(of("weight"), ...given, merged, 4, 2);
          native().mergeRectifiersGrad(of("gmerged"), ...given, ga, gb, ggates, 4, 2);
          some.forEach((_, i) => {
            results.push(merged[i], ga[i], gb[i], ggates[i]);
          });
        }
        return bytesOf(...results);
      });
    const together = run(700);
    expect(together.equals(run(1))).toBe(true);
    expect(together.some((byte) => byte !== 0)).toBe(true);
  });

  test("no experts, or experts whose b is zero, leave the weight bit for bit", () => {
    const shape = [3, 4, 19, 23] as const;
    const c = makeCase(shape, 1);
    on(backend, () => {
      const merged = zeros(c.weight.length);
      const b = zeros(c.b.length);
      native().mergeRectifiers([c.weight], [c.a], [b], [c.gates], [merged], 3, 4);
      expect(merged).toEqual(c.weight);
      merged.fill(77);
      native().mergeRectifiers([c.weight], [zeros(0)], [zeros(0)], [zeros(0)], [merged], 0, 4);
      expect(merged).toEqual(c.weight);
    });
  });

  // The golden's grad_y passes the clip of the quantiser; what arrives at the merged weight is
  // its grad_W, because W enters the sum with factor one.
  test.skipIf(!hasTestData).each([1, 2, 4])("the %d-bit golden is met", (bits) => {
    const g = golden(`golden/ops/rectified_weight_${bits}bit.safetensors`);
    const get = (name: string) => {
      const tensor = g.get(name);
      if (!tensor) throw new Error(`the golden lacks ${name}`);
      return tensor;
    };
    const [outputs, inputs] = get("W").shape;
    const [experts, rank] = get("A").shape;
    const c: Case = {
      weight: get("W").data,
      a: get("A").data,
      b: get("B").data,
      gates: get("g").data,
      gmerged: get("grad_W").data,
    };
    const got = on(backend, () => runAll(c, [experts, rank, inputs, outputs]));
    const wanted = { merged: "merged", ga: "grad_A", gb: "grad_B", ggates: "grad_g" } as const;
    for (const name of NAMES) {
      const { data } = get(wanted[name]);
      expect(got[name].length, name).toBe(data.length + 1);
      expect(relativeError(got[name].subarray(0, -1), data), name).toBeLessThanOrEqual(1e-5);
    }
  });
});

test("gradients of the merge match central differences", () => {
  const shape = [3, 2, 5, 4] as const;
  const c = makeCase(shape, 90);
  on("reference", () => {
    const { ga, gb, ggates } = runAll(c, shape);
    const merged = zeros(c.weight.length);
    const loss = () => {
      native().mergeRectifiers([c.weight], [c.a], [c.b], [c.gates], [merged], 3, 2);
      return dot(merged, c.gmerged);
    };
    const all = (n: number) => Array.from({ length: n }, (_, i) => i);
    expect(finiteDifferenceError(loss, c.a, ga, all(c.a.length))).toBeLessThan(1e-4);
    expect(finiteDifferenceError(loss, c.b, gb, all(c.b.length))).toBeLessThan(1e-4);
    expect(finiteDifferenceError(loss, c.gates, ggates, all(3))).toBeLessThan(1e-4);
  });
});
