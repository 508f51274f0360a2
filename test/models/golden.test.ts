/** The network against the official one: outputs, features, routes and gradients. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import type { F32, I32 } from "../../lib/binding.ts";
import { readPth } from "../../lib/io/pth.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import { toFloat32 } from "../../lib/io/host_tensor.ts";
import { forward, MambaIRv2, type Trace } from "../../lib/models/mambairv2.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { Memory } from "../../lib/tensor.ts";
import { relativeError } from "../ops/harness.ts";
import { hasTestData, testData } from "../data.ts";

/** Golden images are NCHW; ours are NHWC. */
function toChannelsLast(
  data: ArrayLike<number>,
  [batch, channels, height, width]: readonly number[],
): F32 {
  const result = new Float32Array(data.length);
  const area = height * width;
  for (let b = 0; b < batch; b++) {
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < area; i++)
        result[(b * area + i) * channels + c] = data[(b * channels + c) * area + i];
    }
  }
  return result;
}

function load(scale: number): MambaIRv2 {
  const name = testData(`weights/mambairv2_lightSR_x${scale}.pth`);
  return MambaIRv2.fromTensors(readPth(readFileSync(name), name), name);
}

interface Golden {
  readonly tensors: Map<string, { shape: readonly number[]; data: Float32Array }>;
  readonly input: Var;
  readonly output: F32;
  readonly routes: I32[];
}

function golden(path: string): Golden {
  const { tensors: stored } = readSafetensors(readFileSync(testData(path)), path);
  const tensors = new Map(
    [...stored].map(([name, t]) => [name, { shape: t.shape, data: toFloat32(t) }]),
  );
  const input = tensors.get("input")!;
  const [batch, channels, height, width] = input.shape;
  const routes = tensors.get("routes")!;
  const tokens = routes.data.length / routes.shape[0];
  return {
    tensors,
    input: new Var(toChannelsLast(input.data, input.shape), [batch, height, width, channels]),
    output: toChannelsLast(tensors.get("output")!.data, tensors.get("output")!.shape),
    routes: Array.from({ length: routes.shape[0] }, (_, i) =>
      Int32Array.from(routes.data.subarray(i * tokens, (i + 1) * tokens)),
    ),
  };
}

/** "block.G.L" or "group.G" of a golden file in our trace (five layers a group). */
function feature(trace: Trace, name: string): Var | null {
  const block = /^block\.(\d+)\.(\d+)$/.exec(name);
  if (block) return trace.layers[Number(block[1]) * 5 + Number(block[2])];
  const group = /^group\.(\d+)$/.exec(name);
  return group ? trace.groups[Number(group[1])] : null;
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = a.length === b.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < b.length; i++) worst = Math.max(worst, Math.abs(a[i] - b[i]));
  return worst;
}

for (const kind of ["argmax", "sample"]) {
  test.skipIf(!hasTestData)(
    `x4 forward with replayed routes equals the official one (${kind})`,
    () => {
      const g = golden(`golden/mambairv2-light-x4/forward-${kind}.safetensors`);
      const graph = new Graph("running", new Memory());
      const trace: Trace = { layers: [], groups: [] };
      const output = forward(
        graph,
        load(4),
        g.input,
        new FloatSites(),
        new Router({ replay: g.routes }),
        trace,
      );
      expect(largestDifference(output.data, g.output)).toBeLessThan(1e-4);
      let compared = 0;
      for (const [name, { data }] of g.tensors) {
        const mine = feature(trace, name);
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
      graph.run("route", values.data, chosen, 1, rows, 64, 0, 0, 0, layer);
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
  forward(graph, net, g.input, new FloatSites(), new Watching({ mode: "argmax" }));
  expect(checked).toBeGreaterThan(59_000);
});

test.skipIf(!hasTestData)("x2 gradients of every parameter equal the official ones", () => {
  const g = golden("golden/mambairv2-light-x2/backward-argmax.safetensors");
  const net = load(2);
  for (const leaf of net.leaves().values()) leaf.requiresGrad = true;
  const graph = new Graph("recording", new Memory());
  const trace: Trace = { layers: [], groups: [] };
  const router = new Router({ mode: "argmax", replay: g.routes, gradient: "straight-through" });
  const output = forward(graph, net, g.input, new FloatSites(), router, trace);
  const target = toChannelsLast(g.tensors.get("target")!.data, g.tensors.get("target")!.shape);
  const loss = graph.floats(1);
  const gradient = graph.floats(output.size);
  graph.run("l1Loss", output.data, target, loss, gradient, output.size);
  graph.seed(output, gradient);
  for (const layer of trace.layers) {
    // 0.1 * mean((f - 0.9 stopgrad(f))^2): its gradient is 0.1 * 2 * 0.1 f / n.
    const part = graph.floats(layer.size);
    graph.run("scale", layer.data, part, layer.size, (0.1 * 2 * 0.1) / layer.size);
    graph.seed(layer, part);
  }
  graph.backward();
  const leaves = net.leaves();
  let compared = 0;
  for (const name of net.weights.keys()) {
    const parts = /wqkv\.(weight|bias)$/.test(name)
      ? ["q", "k", "v"].map((letter) => name.replace(/\.(\w+)$/, `.${letter}.$1`))
      : [name];
    const values = parts.flatMap((part) => [...(leaves.get(part)!.grad ?? [])]);
    const norm = Math.hypot(...values);
    const wanted = g.tensors.get(`${name}#norm`)!.data[0];
    expect(
      Math.abs(norm - wanted) / Math.max(wanted, 1e-12),
      `${name}: ${norm} for ${wanted}`,
    ).toBeLessThan(1e-3);
    const head = g.tensors.get(`${name}#head`)!.data;
    const span = Math.max(...values.map(Math.abs));
    expect(largestDifference(values.slice(0, head.length), head) / span, name).toBeLessThan(1e-3);
    compared++;
  }
  expect(compared).toBe(1018);
  graph.dispose();
});
