/**
 * SwinIR-light: Swin layers (shifted window attention and an MLP) in the common frame of
 * network.ts, written once for training, inference and tracing. Stochastic depth, a training aid of
 * the original (rate 0 to 0.1), is left out: every layer always runs.
 */
import type { Graph, Var } from "../autograd.ts";
import type { TensorMap } from "../io/host_tensor.ts";
import * as ops from "../ops.ts";
import { attend, attentionSites, layerModules, macItem } from "./blocks.ts";
import {
  type Architecture,
  codedModule,
  type LayerPlace,
  type MacItem,
  type NetworkConfig,
} from "./architecture.ts";
import type { Network } from "./network.ts";
import {
  convSpecs,
  inferDepths,
  inferScale,
  linearSpecs,
  normal,
  normSpecs,
  type ParameterSpec,
  shapeOf,
} from "./parameters.ts";
import type { Sites } from "./sites.ts";

/** What fixes a network of the family; nothing beyond the common sizes. */
export type SwinConfig = NetworkConfig;

const rectified = { rectified: true } as const;

/**
 * The family. Quantised in every scope: inputs and weights of q, k, v, proj, fc1 and fc2, and the
 * attention's q (after its scale), k, v and probabilities; convolutions and norms stay in float.
 */
export const SWINIR: Architecture<SwinConfig> = {
  name: "swinir",
  title: "SwinIR-light",
  padding: "reflect",
  routes: false,
  modules: [
    codedModule("attn.qkv.q", "attn.qkv.q.weight", rectified),
    codedModule("attn.qkv.k", "attn.qkv.k.weight", rectified),
    codedModule("attn.qkv.v", "attn.qkv.v.weight", rectified),
    codedModule("attn.proj", undefined, rectified),
    codedModule("mlp.fc1", undefined, rectified),
    codedModule("mlp.fc2", undefined, rectified),
  ],
  extraSites: attentionSites("attn"),
  lightConfig: (scale) => ({
    scale,
    channels: 60,
    depths: [6, 6, 6, 6],
    heads: 6,
    window: 8,
    hidden: 120,
  }),
  configProblem: ({ channels, heads, window }) =>
    channels % heads !== 0 || window % 2 !== 0
      ? "channels divisible by heads, an even window"
      : null,
  describe: ({ hidden }) => `hidden ${hidden}`,
  recognises: (tensors) => tensors.has(`${layerPrefix(0, 0)}attn.qkv.weight`),
  inferConfig,
  // Both are recomputed: the mask depends on the size of the image.
  isBuffer: (key) => /\.(attn_mask|attn\.relative_position_index)$/.test(key),
  parameterSpecs,
  layerPrefix,
  layer: swinLayer,
  macs,
  // The official test driver's rule: a whole window more where the side is divisible already.
  mirroredSide: (length, { window }) => (Math.floor(length / window) + 1) * window,
};

function layerPrefix(group: number, layer: number): string {
  return `layers.${group}.residual_group.blocks.${layer}.`;
}

function inferConfig(tensors: TensorMap): SwinConfig {
  const first = layerPrefix(0, 0);
  const [table, heads] = shapeOf(tensors, `${first}attn.relative_position_bias_table`, 2);
  return {
    scale: inferScale(tensors),
    channels: shapeOf(tensors, "conv_first.weight", 4)[0],
    depths: inferDepths(tensors, (group, layer) => `${layerPrefix(group, layer)}norm1.weight`),
    heads,
    window: (Math.sqrt(table) + 1) / 2,
    hidden: shapeOf(tensors, `${first}mlp.fc1.weight`, 2)[0],
  };
}

function parameterSpecs(c: SwinConfig): ParameterSpec[] {
  const { channels: C, hidden } = c;
  const table = [(2 * c.window - 1) ** 2, c.heads];
  const perLayer: ParameterSpec[] = [
    ...normSpecs("norm1", C),
    { name: "attn.relative_position_bias_table", shape: table, initial: normal },
    ...linearSpecs("attn.qkv", 3 * C, C),
    ...linearSpecs("attn.proj", C, C),
    ...normSpecs("norm2", C),
    ...linearSpecs("mlp.fc1", hidden, C),
    ...linearSpecs("mlp.fc2", C, hidden),
  ];
  return [
    ...convSpecs("conv_first", [C, 3, 3, 3]),
    ...normSpecs("patch_embed.norm", C),
    ...c.depths.flatMap((depth, group) => [
      ...Array.from({ length: depth }, (_, layer) =>
        perLayer.map((spec) => ({ ...spec, name: layerPrefix(group, layer) + spec.name })),
      ).flat(),
      ...convSpecs(`layers.${group}.conv`, [C, C, 3, 3]),
    ]),
    ...normSpecs("norm", C),
    ...convSpecs("conv_after_body", [C, C, 3, 3]),
    ...convSpecs("upsample.0", [3 * c.scale ** 2, C, 3, 3]),
  ];
}

/** x + attention(norm1(x)), then the same with the MLP: fc2(GELU(fc1(norm2(x)))). */
function swinLayer(
  g: Graph,
  net: Network<SwinConfig>,
  place: LayerPlace,
  x: Var,
  sites: Sites,
): Var {
  const modules = layerModules(g, net, place.prefix, sites);
  const { norm, linear } = modules;
  const attended = g.scope(() =>
    ops.add(g, attend(g, place, modules, norm("norm1", x), "attn.qkv", "attn", sites), x),
  );
  const hidden = linear("mlp.fc1", norm("norm2", attended));
  const inner = sites.activation?.(g, `${place.prefix}mlp.fc1`, hidden) ?? ops.gelu(g, hidden);
  return ops.add(g, linear("mlp.fc2", inner), attended);
}

function macs(config: SwinConfig): MacItem[] {
  const { channels: C, hidden, window, depths, scale } = config;
  const layers = depths.reduce((a, b) => a + b, 0);
  return [
    macItem("conv_first", 1, 27 * C, "float"),
    macItem("qkv", layers, 3 * C * C),
    macItem("q k^T", layers, window ** 2 * C),
    macItem("probabilities v", layers, window ** 2 * C, "probabilities"),
    macItem("proj", layers, C * C),
    macItem("fc1", layers, C * hidden),
    macItem("fc2", layers, hidden * C),
    macItem("group convolutions", depths.length, 9 * C * C, "float"),
    macItem("conv_after_body", 1, 9 * C * C, "float"),
    macItem("upsample", 1, 9 * C * 3 * scale ** 2, "float"),
    macItem("LayerNorm", 2 * layers + 2, 5 * C, "float"),
  ];
}
