/** Covariances of the inputs of a network's linear modules, for what is fitted in closed form. */
import { Graph, type Var } from "../autograd.ts";
import { native } from "../binding.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Network } from "../models/network.ts";
import { Router } from "../nn/routing.ts";
import { floats, type Memory } from "../tensor.ts";
import { codedModules } from "./layout.ts";
import type { Policy } from "./policy.ts";
import { QuantisedSites } from "./sites.ts";

/** Rows summed in single precision before they are added in double. */
const CHUNK = 4096;

/** First and second moments of a module's input over tokens. */
export interface InputMoments {
  readonly mean: Float64Array;
  /** E[x x^T], not centred. */
  readonly second: Matrix;
  /** Largest magnitude, least and largest value of each channel. */
  readonly most: Float64Array;
  readonly low: Float64Array;
  readonly high: Float64Array;
}

function momentsOf(x: Var): InputMoments {
  const cols = x.shape[x.shape.length - 1];
  const rows = x.size / cols;
  const second = matrix(cols, cols);
  const mean = new Float64Array(cols);
  const [block, sums] = [floats(cols * cols), floats(cols)];
  for (let from = 0; from < rows; from += CHUNK) {
    const count = Math.min(CHUNK, rows - from);
    const part = x.data.subarray(from * cols, (from + count) * cols);
    native().linearGradWeight(part, part, block, sums, count, cols, cols);
    block.forEach((value, i) => {
      second.data[i] += value / rows;
    });
    sums.forEach((value, c) => {
      mean[c] += value / rows;
    });
  }
  const low = new Float64Array(cols).fill(Number.POSITIVE_INFINITY);
  const high = new Float64Array(cols).fill(Number.NEGATIVE_INFINITY);
  for (let i = 0; i < rows * cols; i++) {
    const c = i % cols;
    low[c] = Math.min(low[c], x.data[i]);
    high[c] = Math.max(high[c], x.data[i]);
  }
  return { mean, second, most: high.map((top, c) => Math.max(top, -low[c])), low, high };
}

/**
 * Moments of the input of every linear module that `policy` quantises, by module key, from one
 * full-precision pass over `patches` (batch, h, w, 3).
 */
export function inputMoments(
  memory: Memory,
  net: Network,
  policy: Policy,
  patches: Var,
  seed: number,
): Map<string, InputMoments> {
  const sites = new QuantisedSites(policy, net.architecture);
  const bySite = new Map<string, InputMoments>();
  const modules = codedModules(net.architecture, policy).filter(({ kind }) => kind === "linear");
  const keys = net.layerPrefixes.flatMap((prefix) => modules.map(({ name }) => prefix + name));
  const wanted = new Set(keys.map((key) => sites.inputSite(key)));
  const graph = new Graph("running", memory);
  sites.samples = patches.shape[0];
  sites.observer = (site, x) => {
    if (wanted.has(site) && !bySite.has(site)) bySite.set(site, momentsOf(x));
  };
  net.forward(graph, patches, sites, new Router({ mode: "sampled", seed }));
  graph.dispose();
  return new Map(keys.map((key) => [key, bySite.get(sites.inputSite(key))!]));
}
