/**
 * The tensors of MambaIRv2-light: names, shapes and initialisation, in the order of the official
 * checkpoints, and the configuration that a checkpoint's shapes imply.
 */
import type { TensorMap } from "../io/host_tensor.ts";
import type { NetworkConfig } from "./architecture.ts";
import {
  constant,
  convSpecs,
  inferDepths,
  inferScale,
  linearSpecs,
  normal,
  normSpecs,
  type ParameterSpec,
  shapeOf,
  uniform,
} from "./parameters.ts";

/** What fixes a network of the family. */
export interface MambaConfig extends NetworkConfig {
  /** Width of the gated MLP, and of the state-space branch. */
  readonly hidden: number;
  readonly states: number;
  readonly deltaRank: number;
  readonly promptRank: number;
  /** Prompt pool size = number of routing classes. */
  readonly classes: number;
  readonly routerHidden: number;
}

/** The published x2/x3/x4 network of `scale`. */
export function lightConfig(scale: number): MambaConfig {
  return {
    scale,
    channels: 48,
    depths: [5, 5, 5, 5],
    heads: 4,
    window: 16,
    hidden: 48,
    states: 8,
    deltaRank: 3,
    promptRank: 32,
    classes: 64,
    routerHidden: 16,
  };
}

function layerSpecs(c: MambaConfig): ParameterSpec[] {
  const { channels: C, hidden: E } = c;
  const mlp = (name: string): ParameterSpec[] => [
    ...linearSpecs(`${name}.fc1`, E, C),
    ...normSpecs(`${name}.sg.norm`, E / 2),
    ...convSpecs(`${name}.sg.conv`, [E / 2, 1, 5, 5]),
    ...linearSpecs(`${name}.fc2`, C, E / 2),
  ];
  const scan = "assm.selectiveScan";
  const projected = c.deltaRank + 2 * c.states;
  return [
    { name: "scale1", shape: [C], initial: constant(1e-4) },
    { name: "scale2", shape: [C], initial: constant(1e-4) },
    ...[1, 2, 3, 4].flatMap((i) => normSpecs(`norm${i}`, C)),
    ...linearSpecs("wqkv", 3 * C, C),
    {
      name: "win_mhsa.relative_position_bias_table",
      shape: [(2 * c.window - 1) ** 2, c.heads],
      initial: normal,
    },
    ...linearSpecs("win_mhsa.proj", C, C),
    { name: `${scan}.x_proj_weight`, shape: [1, projected, E], initial: uniform(E ** -0.5) },
    {
      name: `${scan}.dt_projs_weight`,
      shape: [1, E, c.deltaRank],
      initial: uniform(c.deltaRank ** -0.5),
    },
    { name: `${scan}.dt_projs_bias`, shape: [1, E], initial: { kind: "delta-bias" } },
    {
      name: `${scan}.A_logs`,
      shape: [E, c.states],
      initial: { kind: "state-logs", states: c.states },
    },
    { name: `${scan}.Ds`, shape: [E], initial: constant(1) },
    ...normSpecs("assm.out_norm", E),
    ...linearSpecs("assm.out_proj", C, E),
    ...convSpecs("assm.in_proj.0", [E, C, 1, 1]),
    ...convSpecs("assm.CPE.0", [E, 1, 3, 3]),
    {
      name: "assm.embeddingB.weight",
      shape: [c.classes, c.promptRank],
      initial: uniform(1 / c.classes),
    },
    ...linearSpecs("assm.route.0", c.routerHidden, C),
    ...linearSpecs("assm.route.2", c.classes, c.routerHidden),
    ...mlp("convffn1"),
    ...mlp("convffn2"),
    {
      name: "embeddingA.weight",
      shape: [c.promptRank, c.states],
      initial: uniform(1 / c.promptRank),
    },
  ];
}

/** Key prefix of one layer's tensors. */
export function layerPrefix(group: number, layer: number): string {
  return `layers.${group}.residual_group.layers.${layer}.`;
}

/** Every tensor of the network `c`, in checkpoint order. */
export function parameterSpecs(c: MambaConfig): ParameterSpec[] {
  const C = c.channels;
  const specs: ParameterSpec[] = [
    ...convSpecs("conv_first", [C, 3, 3, 3]),
    ...normSpecs("patch_embed.norm", C),
  ];
  const perLayer = layerSpecs(c);
  c.depths.forEach((depth, group) => {
    for (let layer = 0; layer < depth; layer++) {
      const prefix = layerPrefix(group, layer);
      specs.push(...perLayer.map((spec) => ({ ...spec, name: prefix + spec.name })));
    }
    specs.push(...convSpecs(`layers.${group}.conv`, [C, C, 3, 3]));
  });
  return [
    ...specs,
    ...normSpecs("norm", C),
    ...convSpecs("conv_after_body", [C, C, 3, 3]),
    ...convSpecs("upsample.0", [3 * c.scale ** 2, C, 3, 3]),
  ];
}

/** Configuration implied by the shapes of a checkpoint; ERR_CHECKPOINT names a missing key. */
export function inferConfig(tensors: TensorMap): MambaConfig {
  const first = layerPrefix(0, 0);
  const inner = (name: string, rank: number): readonly number[] =>
    shapeOf(tensors, first + name, rank);
  const [classes, promptRank] = inner("assm.embeddingB.weight", 2);
  const [table, heads] = inner("win_mhsa.relative_position_bias_table", 2);
  return {
    scale: inferScale(tensors),
    channels: shapeOf(tensors, "conv_first.weight", 4)[0],
    depths: inferDepths(tensors, (group, layer) => `${layerPrefix(group, layer)}scale1`),
    heads,
    window: (Math.sqrt(table) + 1) / 2,
    hidden: inner("convffn1.fc1.weight", 2)[0],
    states: inner("assm.selectiveScan.A_logs", 2)[1],
    deltaRank: inner("assm.selectiveScan.dt_projs_weight", 3)[2],
    promptRank,
    classes,
    routerHidden: inner("assm.route.0.weight", 2)[0],
  };
}
