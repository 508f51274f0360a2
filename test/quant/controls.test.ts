/** Controls that the paper lacks: whole weights tuned directly, and gates that stay uniform. */
import { expect, test } from "vitest";
import { Graph } from "../../lib/autograd.ts";
import { Router } from "../../lib/nn/routing.ts";
import { mergedWeight } from "../../lib/quant/coded_weights.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { gatesOf } from "../../lib/quant/rectifier.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { distill } from "../../lib/train/distill.ts";
import { trainablesOf } from "../../lib/train/trainables.ts";
import { finiteDifferenceError, random } from "../ops/harness.ts";
import { pictures, tinyNet } from "../tiny_net.ts";

const GROUPS = { experts: 2, rank: 2 };
const teacher = tinyNet();
const patches = pictures(2, 16, 3);

const weightsRecipe = { ...RECIPES.best, tuning: "weights" } as const;

function student(recipe: typeof RECIPES.best, bits = 8): Student {
  const policy = policyFor("table4", bits);
  return createStudent(new Memory(), teacher, policy, recipe, GROUPS, patches, 1);
}

test("direct tuning has an increment for every rectified layer, and no rectifiers", () => {
  const { sites } = student(weightsRecipe);
  const group = student(RECIPES.best).sites;
  expect([...sites.increments.keys()]).toEqual([...group.rectifiers.keys()]);
  expect(sites.rectifiers.size).toBe(0);
  const names = trainablesOf(sites, weightsRecipe).map(({ name }) => name);
  expect(names.filter((name) => name.endsWith(".increment"))).toHaveLength(sites.increments.size);
});

test("an untrained increment changes nothing, and a trained one is what the codes are of", () => {
  const one = student(weightsRecipe);
  const key = [...one.sites.increments.keys()][0];
  const weight = one.net.get(`${key}.weight`);
  const graph = new Graph("running");
  expect(mergedWeight(graph, one.sites, key, weight).data).toEqual(weight.data);
  const { value } = one.sites.increments.get(key)!;
  value.data.set(random(value.size, 5));
  const merged = mergedWeight(graph, one.sites, key, weight).data;
  merged.forEach((sum, i) => {
    expect(sum).toBeCloseTo(weight.data[i] + value.data[i], 6);
  });
});

test("the gradient of an increment equals finite differences of the merged weight's codes", () => {
  // Straight-through rounding has no differences of its own: the sum of merged values has.
  const { net, sites } = student(weightsRecipe);
  const key = [...sites.increments.keys()][2];
  const weight = net.get(`${key}.weight`);
  const { value } = sites.increments.get(key)!;
  value.data.set(random(value.size, 6));
  const wanted = random(value.size, 7);
  const graph = new Graph("recording");
  graph.seed(mergedWeight(graph, sites, key, weight), wanted);
  graph.backward();
  const loss = (): number => {
    const { data } = mergedWeight(new Graph("running"), sites, key, weight);
    return data.reduce((sum, w, i) => sum + w * wanted[i], 0);
  };
  const positions = [0, 1, 5, value.size - 1];
  expect(finiteDifferenceError(loss, value.data, value.grad ?? [], positions)).toBeLessThan(5e-3);
});

test("through the whole network an increment gets the gradient that its layer's weight gets", () => {
  const tuned = student(weightsRecipe);
  const memory = new Memory();
  distill(memory, teacher, tuned, patches, 0.1, 3, true);
  const moved = [...tuned.sites.increments].filter(([, { value }]) =>
    value.grad?.some((g) => g !== 0),
  );
  // The router's weights get none: routes are replayed from the teacher.
  expect(moved.map(([key]) => key).some((key) => key.includes("route"))).toBe(false);
  const others = [...tuned.sites.increments.keys()].filter((key) => !key.includes("route"));
  expect(moved).toHaveLength(others.length);
  // With one group of full rank, dL/dB_i = g_i (dL/dW) A_i^T: both paths see the same dL/dW.
  const grouped = student(RECIPES.best);
  distill(memory, teacher, grouped, patches, 0.1, 3, true);
  const key = others[0];
  const { a, b } = grouped.sites.rectifiers.get(key)!;
  const gradient = tuned.sites.increments.get(key)!.value.grad!;
  const [, rank, cols] = a.shape;
  for (const row of [0, 3]) {
    let wanted = 0;
    for (let c = 0; c < cols; c++) wanted += 0.5 * gradient[row * cols + c] * a.data[c];
    expect(b.grad![row * rank]).toBeCloseTo(wanted, 6);
  }
});

test("uniform gates are never trained", () => {
  const recipe = { ...RECIPES.best, gate: "uniform" } as const;
  const { sites } = student(recipe);
  const names = trainablesOf(sites, recipe).map(({ name }) => name);
  expect(names.some((name) => name.endsWith(".logits"))).toBe(false);
  expect(names.some((name) => name.endsWith("rectifier.a"))).toBe(true);
  const [group] = sites.rectifiers.values();
  expect(gatesOf(group)).toEqual([0.5, 0.5]);
});

test("a tuned weight reaches the student's output", () => {
  const one = student(weightsRecipe);
  const run = (): Float32Array => {
    const graph = new Graph("running");
    const router = new Router({ mode: "argmax", seed: 0 });
    return Float32Array.from(one.net.forward(graph, patches, one.sites, router).data);
  };
  const before = run();
  for (const { value, rms } of one.sites.increments.values()) {
    expect(rms).toBeGreaterThan(0);
    value.data.set(random(value.size, 8, -rms, rms));
  }
  expect(run()).not.toEqual(before);
});
