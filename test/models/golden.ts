/** Golden files of whole networks, read into our layout, and comparisons with them. */
import { readFileSync } from "node:fs";
import { type Graph, Var } from "../../lib/autograd.ts";
import type { F32 } from "../../lib/binding.ts";
import { toFloat32 } from "../../lib/io/host_tensor.ts";
import { readPth } from "../../lib/io/pth.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import type { Network, Trace } from "../../lib/models/network.ts";
import { networkFrom } from "../../lib/models/registry.ts";
import { testData } from "../data.ts";

/** Golden images are NCHW; ours are NHWC. */
export function toChannelsLast(
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

/** The network of an official-style checkpoint below the test data. */
export function loadNetwork(path: string): Network {
  const name = testData(path);
  return networkFrom(readPth(readFileSync(name), name), name);
}

/** A golden file: its tensors as stored, input and output (and target) in our layout. */
export interface Golden {
  readonly tensors: Map<string, { shape: readonly number[]; data: Float32Array }>;
  readonly input: Var;
  readonly output: F32;
}

export function readGolden(path: string): Golden {
  const { tensors: stored } = readSafetensors(readFileSync(testData(path)), path);
  const tensors = new Map(
    [...stored].map(([name, t]) => [name, { shape: t.shape, data: toFloat32(t) }]),
  );
  const input = tensors.get("input")!;
  const [batch, channels, height, width] = input.shape;
  return {
    tensors,
    input: new Var(toChannelsLast(input.data, input.shape), [batch, height, width, channels]),
    output: toChannelsLast(tensors.get("output")!.data, tensors.get("output")!.shape),
  };
}

/** "block.G.L" or "group.G" of a golden file in our trace of groups of `depth` layers. */
export function feature(trace: Trace, depth: number, name: string): Var | null {
  const block = /^block\.(\d+)\.(\d+)$/.exec(name);
  if (block) return trace.layers[Number(block[1]) * depth + Number(block[2])];
  const group = /^group\.(\d+)$/.exec(name);
  return group ? trace.groups[Number(group[1])] : null;
}

/** Largest |a - b|; infinite where the lengths differ. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = a.length === b.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < b.length; i++) worst = Math.max(worst, Math.abs(a[i] - b[i]));
  return worst;
}

/** Seeds the golden loss: mean|output - target| + 0.1 sum over layers mean((f - 0.9 stop(f))^2). */
export function seedGoldenLoss(graph: Graph, g: Golden, output: Var, trace: Trace): void {
  const target = toChannelsLast(g.tensors.get("target")!.data, g.tensors.get("target")!.shape);
  const loss = graph.floats(1);
  const gradient = graph.floats(output.size);
  graph.run("l1Loss", output.data, target, loss, gradient, output.size);
  graph.seed(output, gradient);
  for (const layer of trace.layers) {
    // The gradient of 0.1 * mean((f - 0.9 stop(f))^2) is 0.1 * 2 * 0.1 f / n.
    const part = graph.floats(layer.size);
    graph.run("scale", layer.data, part, layer.size, (0.1 * 2 * 0.1) / layer.size);
    graph.seed(layer, part);
  }
}

/** Relative error of a parameter's gradient: of its norm, and of its first values to its largest. */
export function gradientError(
  net: Network,
  g: Golden,
  name: string,
): { readonly norm: number; readonly head: number } {
  const leaves = net.leaves();
  const parts = /qkv\.(weight|bias)$/.test(name)
    ? ["q", "k", "v"].map((letter) => name.replace(/\.(\w+)$/, `.${letter}.$1`))
    : [name];
  const values = parts.flatMap((part) => [...(leaves.get(part)!.grad ?? [])]);
  const wanted = g.tensors.get(`${name}#norm`)!.data[0];
  const head = g.tensors.get(`${name}#head`)!.data;
  const span = Math.max(...values.map(Math.abs));
  return {
    norm: Math.abs(Math.hypot(...values) - wanted) / Math.max(wanted, 1e-12),
    head: largestDifference(values.slice(0, head.length), head) / span,
  };
}
