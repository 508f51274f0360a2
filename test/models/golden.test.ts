/** The network against the official one: outputs, features, routes and gradients. */
import { expect, test } from "vitest";
import { Graph } from "../../lib/autograd.ts";
import type { I32 } from "../../lib/binding.ts";
import type { Trace } from "../../lib/models/network.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { Memory } from "../../lib/tensor.ts";
import { hasTestData } from "../data.ts";
import { relativeError } from "../ops/harness.ts";
import {
  feature,
  type Golden,
  gradientError,
  largestDifference,
  loadNetwork,
  readGolden,
  seedGoldenLoss,
} from "./golden.ts";

const load = (scale: number) => loadNetwork(`weights/mambairv2_lightSR_x${scale}.pth`);

function golden(path: string): Golden & { readonly routes: I32[] } {
  const read = readGolden(path);
  const routes = read.tensors.get("routes")!;
  const tokens = routes.data.length / routes.shape[0];
  const layers = Array.from({ length: routes.shape[0] }, (_, i) =>
    Int32Array.from(routes.data.subarray(i * tokens, (i + 1) * tokens)),
  );
  return { ...read, routes: layers };
}

for (const kind of ["argmax", "sample"]) {
  test.skipIf(!hasTestData)(
    `x4 forward with replayed routes equals the official one (${kind})`,
    () => {
      const g = golden(`golden/mambairv2-light-x4/forward-${kind}.safetensors`);
      const graph = new Graph("running", new Memory());
      const trace: Trace = { layers: [], groups: [] };
      const output = load(4).forward(
        graph,
        g.input,
        new FloatSites(),
        new Router({ replay: g.routes }),
        trace,
      );
      expect(largestDifference(output.data, g.output)).toBeLessThan(1e-4);
      let compared = 0;
      for (const [name, { data }] of g.tensors) {
        const mine = feature(trace, 5, name);
        if (!mine) continue;
        compared++;
        // Features reach thousands; the bound is relative to the largest.
        expect(relativeError(mine.data, data), name).toBeLessThan(1e-4);
      }
      expect(compared).toBeGreaterThanOrEqual(kind === "argmax" ? 4 : 1);
    },
  );
}

test.skipIf(!hasTestData)("free argmax gives every official route whose margin is clear", () => {
  const g = golden("golden/mambairv2-light-x4/forward-argmax.safetensors");
  const net = load(4);
  let checked = 0;
  // Layer by layer: earlier layers replay the official routes, this one chooses freely.
  class Watching extends Router {
    override route(...args: Parameters<Router["route"]>): ReturnType<Router["route"]> {
      const [graph, layer, , rows, logits] = args;
      const values = logits();
      const chosen = new Int32Array(rows);
      graph.run("route", values.data, chosen, 1, rows, 64, 0, 0, 0, layer, 0);
      for (let n = 0; n < rows; n++) {
        const row = [...values.data.subarray(n * 64, n * 64 + 64)].sort((a, b) => b - a);
        if (row[0] - row[1] <= 1e-4) continue;
        checked++;
        if (chosen[n] !== g.routes[layer][n]) throw new Error(`layer ${layer}, token ${n}`);
      }
      return { classes: g.routes[layer], logits: null };
    }
  }
  const graph = new Graph("running", new Memory());
  net.forward(graph, g.input, new FloatSites(), new Watching({ mode: "argmax" }));
  expect(checked).toBeGreaterThan(59_000);
});

test.skipIf(!hasTestData)("x2 gradients of every parameter equal the official ones", () => {
  const g = golden("golden/mambairv2-light-x2/backward-argmax.safetensors");
  const net = load(2);
  for (const leaf of net.leaves().values()) leaf.requiresGrad = true;
  const graph = new Graph("recording", new Memory());
  const trace: Trace = { layers: [], groups: [] };
  const router = new Router({ mode: "argmax", replay: g.routes, gradient: "straight-through" });
  const output = net.forward(graph, g.input, new FloatSites(), router, trace);
  seedGoldenLoss(graph, g, output, trace);
  graph.backward();
  let compared = 0;
  for (const name of net.weights.keys()) {
    const { norm, head } = gradientError(net, g, name);
    expect(norm, name).toBeLessThan(1e-3);
    expect(head, name).toBeLessThan(1e-3);
    compared++;
  }
  expect(compared).toBe(1018);
  graph.dispose();
});
