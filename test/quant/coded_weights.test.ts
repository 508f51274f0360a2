/** The weights of a step, merged and coded for all layers at once: one call each, the same bits. */
import { expect, test } from "vitest";
import { releaseGradients } from "../../lib/autograd.ts";
import { native } from "../../lib/binding.ts";
import type { Network } from "../../lib/models/network.ts";
import { policyFor, type Scope } from "../../lib/quant/policy.ts";
import { RECIPES, type RecipeName } from "../../lib/quant/recipes.ts";
import { createStudent } from "../../lib/quant/student.ts";
import { Memory, type OpCall } from "../../lib/tensor.ts";
import { distill } from "../../lib/train/distill.ts";
import { trainablesOf } from "../../lib/train/trainables.ts";
import { bytesOf, random } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

/** Memory that counts the calls of every op. */
class CountingMemory extends Memory {
  readonly calls = new Map<string, number>();
  readonly #names = new Map(
    native()
      .opNames()
      .map((name) => [native()[name as never], name]),
  );

  override run(op: OpCall, operands: readonly unknown[]): void {
    const name = this.#names.get(op as never)!;
    this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    super.run(op, operands);
  }
}

/** One step of a student: calls by op, and the losses' and gradients' bits. */
function step(net: Network, scope: Scope, recipe: RecipeName, recompute: boolean, atOnce: boolean) {
  const groups = { experts: 2, rank: 2 };
  const policy = policyFor(scope, 4);
  const patches = pictures(2, 16, 3);
  const memory = new CountingMemory();
  const student = createStudent(memory, net, policy, RECIPES[recipe], groups, patches, 0);
  let seed = 1;
  for (const { b, logits } of student.sites.rectifiers.values()) {
    b.data.set(random(b.size, seed++, -0.05, 0.05));
    logits.data.set(random(logits.size, seed++));
  }
  if (!atOnce) Object.defineProperty(student.sites, "prepare", { value: undefined });
  memory.calls.clear();
  const kept = recompute ? 0 : undefined;
  const losses = distill(memory, net, student, pictures(2, 16, 5), 1, 3, true, kept);
  const leaves = trainablesOf(student.sites, RECIPES[recipe]).map(({ value }) => value);
  const gradients = leaves.flatMap(({ grad }) => grad ?? []);
  const bits = bytesOf(Float32Array.of(losses.pixel, losses.feature), ...gradients);
  const none = leaves.map(({ grad }) => grad === null);
  releaseGradients(memory, leaves);
  return { calls: memory.calls, bits, none };
}

const cases: readonly [string, () => Network, Scope, RecipeName, boolean][] = [
  ["MambaIRv2", tinyNet, "best", "best", false],
  ["MambaIRv2, layers made again in backward", tinyNet, "best", "best", true],
  ["MambaIRv2, one pair of bounds a weight", tinyNet, "released", "released", false],
  ["SwinIR", tinySwin, "best", "best", true],
];

test.each(cases)("%s: one call of each op, and the bits of layer by layer", (_, net, ...rest) => {
  const all = step(net(), ...rest, true);
  const apart = step(net(), ...rest, false);
  for (const op of ["softmax", "mergeRectifiers", "quantizeWeights"]) {
    expect(all.calls.get(op), op).toBe(1);
    expect(all.calls.get(`${op}Grad`), op).toBe(1);
  }
  expect(apart.calls.get("mergeRectifiers")).toBeGreaterThan(10);
  expect(apart.calls.get("quantizeWeights")).toBeUndefined();
  expect(all.none).toEqual(apart.none);
  expect(all.bits.equals(apart.bits)).toBe(true);
});

test("input-dependent gates mix where their input is known; other weights are coded at once", () => {
  const rest = ["table4", "paper", false] as const;
  const all = step(tinyNet(), ...rest, true);
  const apart = step(tinyNet(), ...rest, false);
  expect(all.calls.get("mergeRectifiers")).toBe(apart.calls.get("mergeRectifiers"));
  expect(all.calls.get("quantizeWeights")).toBe(1);
  expect(all.bits.equals(apart.bits)).toBe(true);
});
