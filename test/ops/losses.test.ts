/** l1_loss and feature_loss: values and gradients. */
import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import {
  fastBackends,
  finiteDifferenceError,
  on,
  random,
  relativeError,
  zeros,
} from "./harness.ts";
import { differingNames, onThreads } from "./threads.ts";

/** n, batch: remainders of every vector width, several chunks of 32768. */
const SHAPES = [
  [1, 1],
  [17, 1],
  [3 * 101, 3],
  [4 * 10007, 4],
  [2 * 70001, 2],
] as const;

type Loss = "l1" | "feature";

function run(kind: Loss, x: F32, target: F32, n: number, batch: number) {
  const loss = zeros(1);
  const gx = new Float32Array(n + 1).fill(77);
  if (kind === "l1") native().l1Loss(x, target, loss, gx, n);
  else native().featureLoss(x, target, loss, gx, n, batch);
  return { loss, gx };
}

describe.each(fastBackends)("on %s", (backend) => {
  test.each(SHAPES)("n %d in %d samples agrees with the reference", (n, batch) => {
    const x = random(n, n);
    const target = random(n, n + 1);
    x[n >> 1] = target[n >> 1]; // an exact tie
    for (const kind of ["l1", "feature"] as const) {
      const expected = on("reference", () => run(kind, x, target, n, batch));
      const got = on(backend, () => run(kind, x, target, n, batch));
      expect(relativeError(got.loss, expected.loss), kind).toBeLessThanOrEqual(1e-6);
      expect(relativeError(got.gx, expected.gx.fill(77, n)), kind).toBeLessThanOrEqual(1e-5);
      expect(got.gx[n], kind).toBe(77);
      if (kind === "l1") expect(differingNames({ gx: got.gx }, { gx: expected.gx })).toEqual([]);
    }
  });

  test("one and two threads give the same bits", () => {
    const [n, batch] = [3 * 50021, 3];
    const x = random(n, 1);
    const target = random(n, 2);
    for (const kind of ["l1", "feature"] as const) {
      const one = onThreads(backend, 1, () => run(kind, x, target, n, batch));
      const two = onThreads(backend, 2, () => run(kind, x, target, n, batch));
      expect(differingNames(two, one), kind).toEqual([]);
    }
  });
});

describe.each(native().backends())("on %s", (backend) => {
  test("hand-made values: ties give no gradient, an absent target counts with denominator one", () => {
    on(backend, () => {
      const x = Float32Array.of(1, 2, 3, 4);
      const l1 = run("l1", x, Float32Array.of(2, 2, 1, 4), 4, 1);
      expect(l1.loss[0]).toBe(0.75);
      expect([...l1.gx.subarray(0, 4)]).toEqual([-0.25, 0, 0.25, 0]);
      const feature = run("feature", x, Float32Array.of(1, 1, 0, 0), 4, 2);
      expect(feature.loss[0]).toBe((0.5 + 25) / 2);
      expect([...feature.gx.subarray(0, 4)]).toEqual([0, 0.5, 3, 4]);
    });
  });
});

test("gradients of both losses match central differences", () => {
  const [n, batch] = [24, 3];
  const x = random(n, 3, 2, 3); // away from the target: |x - target| has no kink here
  const target = random(n, 4);
  on("reference", () => {
    for (const kind of ["l1", "feature"] as const) {
      const { gx } = run(kind, x, target, n, batch);
      const loss = () => run(kind, x, target, n, batch).loss[0];
      const all = Array.from({ length: n }, (_, i) => i);
      expect(finiteDifferenceError(loss, x, gx, all, 0.05), kind).toBeLessThan(1e-3);
    }
  });
});
