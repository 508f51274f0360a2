/** CondiQuant's pre-conditioning: the proximal step, the budget of outputs, and whole networks. */
import { expect, test } from "vitest";
import { Graph } from "../../lib/autograd.ts";
import { type Matrix, matrix, product, transposed } from "../../lib/linalg/matrix.ts";
import { svd } from "../../lib/linalg/svd.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { conditionedCopy, conditionWeight, shrunk } from "../../lib/quant/conditioning.ts";
import { inputMoments } from "../../lib/quant/covariance.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { Memory } from "../../lib/tensor.ts";
import { random } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

test("the shrink is the proximal map of half the spread of the values", () => {
  // No small change of the result lowers 1/2 |t - s|^2 + lambda/2 sum (t_i - mean t)^2.
  const s = Float64Array.from(random(9, 1, 0, 5));
  const lambda = 0.7;
  const cost = (t: Float64Array): number => {
    const mean = t.reduce((a, b) => a + b) / t.length;
    return t.reduce((sum, x, i) => sum + (x - s[i]) ** 2 / 2 + (lambda / 2) * (x - mean) ** 2, 0);
  };
  const best = shrunk(s, lambda);
  for (let i = 0; i < s.length; i++) {
    for (const step of [-1e-3, 1e-3]) {
      const near = Float64Array.from(best);
      near[i] += step;
      expect(cost(near)).toBeGreaterThan(cost(best));
    }
  }
});

test("an ill-conditioned weight comes out better conditioned, its outputs within the budget", () => {
  const [out, cols, tokens] = [20, 16, 400];
  const thin = product(matrix(out, 3, random(out * 3, 2)), matrix(3, cols, random(3 * cols, 3)));
  const noise = random(out * cols, 4, -1e-3, 1e-3);
  const w: Matrix = { ...thin, data: thin.data.map((value, i) => value + noise[i]) };
  const x = matrix(
    tokens,
    cols,
    random(tokens * cols, 5).map((v, i) => v * ((i % cols) + 1)),
  );
  const second = product(transposed(x), x);
  second.data.forEach((value, i) => {
    second.data[i] = value / tokens;
  });
  for (const budget of [1e-4, 1e-2]) {
    const { weight, before, after, error } = conditionWeight(w, second, budget);
    expect(before).toBeGreaterThan(1000);
    expect(after).toBeLessThan(before * (budget < 1e-3 ? 0.5 : 0.1));
    const { values } = svd(weight);
    expect(values[0] / values[cols - 1]).toBeCloseTo(after, 6);
    // The stated error, from the outputs themselves.
    const [wanted, got] = [w, weight].map((one) => product(x, transposed(one)).data);
    const energy = wanted.reduce((sum, y) => sum + y * y, 0);
    const moved = got.reduce((sum, y, i) => sum + (y - wanted[i]) ** 2, 0);
    expect(moved / energy).toBeCloseTo(error, 8);
    expect(error).toBeLessThanOrEqual(budget);
  }
});

test("moments of inputs are those of plain sums, for every linear module", () => {
  const net = tinySwin();
  const policy = policyFor("table4", 4);
  const moments = inputMoments(new Memory(), net, policy, pictures(2, 16, 3), 0);
  expect(moments.size).toBe(3 * 6);
  const seen = new Map<string, Float32Array>();
  class Watching extends FloatSites {
    override linear(...args: Parameters<FloatSites["linear"]>): ReturnType<FloatSites["linear"]> {
      seen.set(args[1], Float32Array.from(args[2].data));
      return super.linear(...args);
    }
  }
  const graph = new Graph("running", new Memory());
  net.forward(graph, pictures(2, 16, 3), new Watching(), new Router({ mode: "sampled", seed: 0 }));
  for (const [key, { mean, second, most }] of moments) {
    const x = seen.get(key)!;
    const cols = mean.length;
    const rows = x.length / cols;
    for (const [i, j] of [
      [0, 0],
      [1, cols - 1],
    ]) {
      let [sum, total, top] = [0, 0, 0];
      for (let r = 0; r < rows; r++) {
        sum += (x[r * cols + i] * x[r * cols + j]) / rows;
        total += x[r * cols + j] / rows;
        top = Math.max(top, Math.abs(x[r * cols + j]));
      }
      expect(second.data[i * cols + j]).toBeCloseTo(sum, 4);
      expect(mean[j]).toBeCloseTo(total, 4);
      expect(most[j]).toBe(top);
    }
  }
});

test("a conditioned network stays close to its original and conditions every linear module", () => {
  for (const [net, modules] of [
    [tinyNet(), 14],
    [tinySwin(), 6],
  ] as const) {
    const patches = pictures(2, 16, 3);
    const policy = policyFor("table4", 4);
    const copy = conditionedCopy(new Memory(), net, policy, patches, 0);
    expect(copy.layers.size).toBe(3 * modules);
    for (const { before, after } of copy.layers.values())
      expect(after).toBeLessThanOrEqual(before * 1.0001);
    const graph = new Graph("running", new Memory());
    const routes = new Router({ mode: "sampled", seed: 0 });
    const wanted = net.forward(graph, patches, new FloatSites(), routes).data;
    const replay = new Router({ replay: routes.classes });
    const got = copy.net.forward(graph, patches, new FloatSites(), replay).data;
    const mean = wanted.reduce((a, b) => a + b, 0) / wanted.length;
    const spread = wanted.reduce((sum, y) => sum + (y - mean) ** 2, 0);
    const moved = got.reduce((sum, y, i) => sum + (y - wanted[i]) ** 2, 0);
    expect(moved).toBeGreaterThan(0);
    expect(moved / spread).toBeLessThan(0.05);
  }
});
