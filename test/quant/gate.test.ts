/** The paper's gate network: a point of the simplex, and its gradients against differences. */
import { expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { createGate, type DynamicGate, dynamicGates } from "../../lib/quant/gate.ts";
import { dot, finiteDifferenceError, random, uniform } from "../ops/harness.ts";

function gate(): DynamicGate {
  const made = createGate(6, 3, uniform(4));
  made.b1.data.set(random(16, 5));
  made.w2.data.set(random(48, 6));
  made.b2.data.set(random(3, 7));
  return made;
}

const input = (): Var => new Var(random(2 * 5 * 6, 8), [10, 6]);

test("a fresh gate is uniform, a trained one lies on the simplex and looks at its input", () => {
  const graph = new Graph("running");
  const fresh = dynamicGates(graph, createGate(6, 4, uniform(1)), input(), 2).data;
  expect([...fresh]).toEqual([0.25, 0.25, 0.25, 0.25]);
  const one = dynamicGates(graph, gate(), input(), 2).data;
  expect(one.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
  const other = new Var(random(60, 9), [10, 6]);
  expect(dynamicGates(graph, gate(), other, 2).data).not.toEqual(one);
});

test("the gradient of every part equals finite differences", () => {
  const made = gate();
  const x = input();
  const weights = random(3, 10);
  const graph = new Graph("recording");
  const y = dynamicGates(graph, made, x, 2);
  graph.seed(y, weights);
  graph.backward();
  const loss = (): number => dot(dynamicGates(new Graph("running"), made, x, 2).data, weights);
  for (const part of ["w1", "b1", "w2", "b2"] as const) {
    const { data, grad } = made[part];
    const positions = Array.from({ length: Math.min(12, data.length) }, (_, i) => i);
    expect(finiteDifferenceError(loss, data, grad ?? [], positions), part).toBeLessThan(5e-3);
  }
});
