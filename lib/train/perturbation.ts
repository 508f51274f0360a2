/**
 * Average perturbation Hessian: how much the gradient of the final squared error at a block's output
 * changes when that output is moved by a small e in every element, h = |g(z + e) - g(z - e)|.
 */
import { Graph, Var } from "../autograd.ts";
import type { Network, Trace } from "../models/network.ts";
import { FloatSites } from "../models/sites.ts";
import { Router } from "../nn/routing.ts";
import type { Memory } from "../tensor.ts";

/** The step as a share of the output's root mean square: 1e-6 would be lost in rounding. */
const STEP = 1e-3;

/** h by channel, averaged over tokens, scaled to a mean of 1. */
export function perturbationHessian(
  memory: Memory,
  net: Network,
  patches: Var,
  layer: number,
  seed: number,
): Float64Array {
  const quiet = new Graph("running", memory);
  const routes = new Router({ mode: "sampled", seed });
  const target = net.forward(quiet, patches, new FloatSites(), routes);
  const gradientAt = (side: number): Float32Array => {
    const graph = new Graph("recording", memory);
    let moved: Var | null = null;
    const watch = (_: Graph, index: number, output: Var): Var => {
      if (index !== layer) return output;
      const rms = Math.sqrt(output.data.reduce((sum, v) => sum + v * v, 0) / output.size);
      const values = output.data.map((v) => v + side * STEP * rms);
      moved = new Var(values, output.shape, true);
      return moved;
    };
    const trace: Trace = { layers: [], groups: [], watch };
    const replay = new Router({ replay: routes.classes });
    const output = net.forward(graph, patches, new FloatSites(), replay, trace);
    const slope = graph.floats(output.size);
    for (let i = 0; i < slope.length; i++)
      slope[i] = (2 * (output.data[i] - target.data[i])) / slope.length;
    graph.seed(output, slope);
    graph.backward();
    const { grad } = moved as unknown as Var;
    const gradient = Float32Array.from(grad!);
    memory.give(grad!.buffer);
    graph.dispose();
    return gradient;
  };
  const [up, down] = [gradientAt(1), gradientAt(-1)];
  quiet.dispose();
  const { channels } = net.config;
  const h = new Float64Array(channels);
  up.forEach((value, i) => {
    h[i % channels] += Math.abs(value - down[i]);
  });
  const mean = h.reduce((sum, value) => sum + value, 0) / channels;
  return h.map((value) => (mean > 0 ? value / mean : 1));
}
