/** What the layers of several architectures share: named access to weights, window attention. */
import type { Graph, Var } from "../autograd.ts";
import * as ops from "../ops.ts";
import type { ExtraSite, LayerPlace, MacItem } from "./architecture.ts";
import type { LayerWeights, Network } from "./network.ts";
import type { Sites } from "./sites.ts";

/** Modules of one layer by their names inside it. */
export interface LayerModules {
  readonly weights: LayerWeights;
  norm(name: string, input: Var): Var;
  linear(name: string, input: Var): Var;
}

/** The modules of the layer whose tensors start with `prefix`; products go through `sites`. */
export function layerModules(g: Graph, net: Network, prefix: string, sites: Sites): LayerModules {
  const weights: LayerWeights = (name) => net.get(prefix + name);
  return {
    weights,
    norm: (name, input) =>
      ops.layerNorm(g, input, weights(`${name}.weight`), weights(`${name}.bias`)),
    linear: (name, input) =>
      sites.linear(g, prefix + name, input, weights(`${name}.weight`), weights(`${name}.bias`)),
  };
}

/**
 * Window attention of tokens n (rows, channels) with its projections: q (scaled by
 * head_dim^-1/2), k and v by `joint`, the result by KEY.proj, position biases from KEY's table.
 */
export function attend(
  g: Graph,
  place: LayerPlace,
  { weights, linear }: LayerModules,
  n: Var,
  joint: string,
  key: string,
  sites: Sites,
): Var {
  const q = linear(`${joint}.q`, n);
  const scaled = ops.scale(g, q, (q.shape[1] / place.heads) ** -0.5);
  const qkv = [scaled, linear(`${joint}.k`, n), linear(`${joint}.v`, n)] as const;
  const table = weights(`${key}.relative_position_bias_table`);
  return linear(`${key}.proj`, sites.attention(g, place.prefix + key, qkv, table, place));
}

/** Quantisers of the attention `key`: its operands and, by Eq. 1, its probabilities. */
export function attentionSites(key: string): ExtraSite[] {
  return [
    { name: `${key}.q`, joint: false, when: "always" },
    { name: `${key}.k`, joint: false, when: "always" },
    { name: `${key}.v`, joint: false, when: "always" },
    { name: `${key}.p`, joint: true, when: "uniform-probabilities" },
  ];
}

/** MACs of `instances` operations of `macs` each per token, or in all where `once`. */
export function macItem(
  name: string,
  instances: number,
  macs: number,
  operands: MacItem["operands"] = "codes",
  once = false,
): MacItem {
  return { name, instances, macs, operands, once };
}
