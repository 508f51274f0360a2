/** Transforms of quamba and mambaquant: nothing changes in float, variances even out, MACs are told. */
import { expect, test } from "vitest";
import { Graph } from "../../lib/autograd.ts";
import type { F32 } from "../../lib/binding.ts";
import { matrix, product, transposed } from "../../lib/linalg/matrix.ts";
import { kltHadamard, MAMBAQUANT } from "../../lib/methods/mambaquant.ts";
import { QUAMBA } from "../../lib/methods/quamba.ts";
import type { Network } from "../../lib/models/network.ts";
import { MAMBAIRV2 } from "../../lib/models/mambairv2.ts";
import { FloatSites, type Sites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { macAccount, macRows } from "../../lib/quant/accounts.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { hadamardOf } from "../../lib/quant/rotation.ts";
import { QuantisedSites } from "../../lib/quant/sites.ts";
import { Memory } from "../../lib/tensor.ts";
import type { Method, MethodContext } from "../../lib/train/method.ts";
import { random } from "../ops/harness.ts";
import { pictures, tinyNet } from "../tiny_net.ts";

/** A context whose patches are pictures; nothing is trained. */
function contextOf(method: Method, teacher: Network, bits: number): MethodContext {
  const scoped = policyFor("table4", bits);
  return {
    memory: new Memory(),
    teacher,
    policy: method.policy?.(scoped, teacher.architecture) ?? scoped,
    source: { scale: 2 } as MethodContext["source"],
    recipe: { ...method.recipe, iterations: 0 },
    seed: 3,
    groups: { experts: 0, rank: 0 },
    condition: false,
    calibration: (_, index = 0) => pictures(2, 16, 30 + index),
  };
}

function pixels(net: Network, sites: Sites, routes: Router): F32 {
  const graph = new Graph("running", new Memory());
  const result = Float32Array.from(net.forward(graph, pictures(1, 24, 9), sites, routes).data);
  graph.dispose();
  return result;
}

test("KLT-Hadamard gives every channel the mean of the eigenvalues as its variance", () => {
  const [rows, cols] = [4000, 16];
  const mix = matrix(cols, cols, random(cols * cols, 1));
  const x = product(matrix(rows, cols, random(rows * cols, 2)), mix);
  const mean = new Float64Array(cols);
  x.data.forEach((value, i) => {
    x.data[i] = value * ((i % cols) + 1) + (i % cols);
    mean[i % cols] += x.data[i] / rows;
  });
  const second = product(transposed(x), x);
  second.data.forEach((value, i) => {
    second.data[i] = value / rows;
  });
  const turn = kltHadamard({ mean, second });
  const variances = (turned: Float64Array): number[] =>
    Array.from({ length: cols }, (_, c) => {
      const column = Float64Array.from({ length: rows }, (_, r) => turned[r * cols + c]);
      const middle = column.reduce((a, b) => a + b) / rows;
      return column.reduce((sum, v) => sum + (v - middle) ** 2, 0) / rows;
    });
  const plain = variances(x.data);
  const wanted = plain.reduce((a, b) => a + b) / cols;
  expect(Math.max(...plain) / Math.min(...plain)).toBeGreaterThan(10);
  for (const variance of variances(product(x, turn).data))
    expect(variance / wanted).toBeCloseTo(1, 6);
  // Hadamard alone does not.
  const alone = variances(product(x, hadamardOf(cols)).data);
  expect(Math.max(...alone) / Math.min(...alone)).toBeGreaterThan(1.1);
});

test.each([QUAMBA, MAMBAQUANT])(
  "$name: without its quantisers the network is the teacher's",
  (method) => {
    const teacher = tinyNet();
    const { student } = method.prepare(contextOf(method, teacher, 4));
    const routes = new Router({ mode: "sampled", seed: 5 });
    const wanted = pixels(teacher, new FloatSites(), routes);
    // Observed sites pass their values through: rotations and folded weights, but no codes.
    const { sites, net } = student;
    sites.observer = (): void => {};
    const got = pixels(net, sites, new Router({ replay: routes.classes }));
    sites.observer = null;
    const worst = got.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i])), 0);
    // What is left is the rounding of float tensors and of stored rotations to half precision.
    const spread = Math.max(...wanted) - Math.min(...wanted);
    expect(worst).toBeLessThan(0.01 * spread);
    expect(worst).toBeGreaterThan(0);
    const coded = pixels(net, sites, new Router({ replay: routes.classes }));
    expect(coded.some((value, i) => Math.abs(value - wanted[i]) > worst)).toBe(true);
  },
);

test("quamba's ranges in the module are symmetric, the others DOBI's", () => {
  for (const bits of [2, 4]) {
    const { student } = QUAMBA.prepare(contextOf(QUAMBA, tinyNet(), bits));
    let inside = 0;
    for (const [site, { lower, upper }] of student.sites.bounds) {
      if (!/assm\.(in_proj|out_proj|selectiveScan)/.test(site)) continue;
      inside++;
      const step = (upper.data[0] - lower.data[0]) / (2 ** bits - 1);
      expect(lower.data[0] / step, site).toBeCloseTo(-(2 ** (bits - 1)), 3);
    }
    expect(inside).toBe(3 * 8);
  }
});

test("mambaquant codes dt_proj's input around channel means, its weights by output channel", () => {
  const { student } = MAMBAQUANT.prepare(contextOf(MAMBAQUANT, tinyNet(), 4));
  const scan = "layers.0.residual_group.layers.1.assm.selectiveScan";
  expect(student.sites.bounds.get(`${scan}.dt_projs_weight.x`)?.granularity).toBe("column");
  expect(student.sites.bounds.get(`${scan}.x_proj_weight.w`)?.lower.size).toBe(1 + 2 * 4);
});

test("online rotations are counted: in x in MACs of float for every token and layer", () => {
  const config = MAMBAIRV2.lightConfig(4);
  const design = { architecture: MAMBAIRV2, config };
  const plain = policyFor("table4", 4);
  const turned = QUAMBA.policy!(plain, MAMBAIRV2);
  const added = macAccount(design, turned).macs - macAccount(design, plain).macs;
  expect(added).toBe(2 * 20 * 48 * 48 * 192 * 320);
  const rows = macRows(design, turned).filter(({ name }) => name.startsWith("rotation"));
  expect(rows.map(({ bits }) => bits)).toEqual([
    [32, 32],
    [32, 32],
  ]);
  expect(new QuantisedSites(turned, MAMBAIRV2).rotations.size).toBe(0);
});
