/**
 * The tensors of MambaIRv2-light: names, shapes and initialisation, in the order of the official
 * checkpoints, and the configuration that a checkpoint's shapes imply.
 */
import { Spr2qError, expected } from "../errors.ts";
import type { HostTensor, TensorMap } from "../io/host_tensor.ts";

/** What fixes a network of the family. */
export interface MambaConfig {
  readonly scale: number;
  readonly channels: number;
  readonly depths: readonly number[];
  readonly heads: number;
  readonly window: number;
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

/** How a fresh parameter is drawn (only for training from scratch). */
export type Initial =
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "normal"; readonly deviation: number }
  | { readonly kind: "uniform"; readonly bound: number }
  | { readonly kind: "state-logs" }
  | { readonly kind: "delta-bias" };

export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly initial: Initial;
}

const constant = (value: number): Initial => ({ kind: "constant", value });
const normal: Initial = { kind: "normal", deviation: 0.02 };
const uniform = (bound: number): Initial => ({ kind: "uniform", bound });

function pair(name: string, shape: number[], initial: Initial, bias: Initial): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape, initial },
    { name: `${name}.bias`, shape: [shape[0]], initial: bias },
  ];
}
const linear = (name: string, out: number, cols: number): ParameterSpec[] =>
  pair(name, [out, cols], normal, constant(0));
const norm = (name: string, channels: number): ParameterSpec[] =>
  pair(name, [channels], constant(1), constant(0));
function conv(name: string, shape: number[]): ParameterSpec[] {
  const bound = uniform(1 / Math.sqrt(shape[1] * shape[2] * shape[3]));
  return pair(name, shape, bound, bound);
}

function layerSpecs(c: MambaConfig): ParameterSpec[] {
  const { channels: C, hidden: E } = c;
  const mlp = (name: string): ParameterSpec[] => [
    ...linear(`${name}.fc1`, E, C),
    ...norm(`${name}.sg.norm`, E / 2),
    ...conv(`${name}.sg.conv`, [E / 2, 1, 5, 5]),
    ...linear(`${name}.fc2`, C, E / 2),
  ];
  const scan = "assm.selectiveScan";
  const projected = c.deltaRank + 2 * c.states;
  return [
    { name: "scale1", shape: [C], initial: constant(1e-4) },
    { name: "scale2", shape: [C], initial: constant(1e-4) },
    ...[1, 2, 3, 4].flatMap((i) => norm(`norm${i}`, C)),
    ...linear("wqkv", 3 * C, C),
    {
      name: "win_mhsa.relative_position_bias_table",
      shape: [(2 * c.window - 1) ** 2, c.heads],
      initial: normal,
    },
    ...linear("win_mhsa.proj", C, C),
    { name: `${scan}.x_proj_weight`, shape: [1, projected, E], initial: uniform(E ** -0.5) },
    {
      name: `${scan}.dt_projs_weight`,
      shape: [1, E, c.deltaRank],
      initial: uniform(c.deltaRank ** -0.5),
    },
    { name: `${scan}.dt_projs_bias`, shape: [1, E], initial: { kind: "delta-bias" } },
    { name: `${scan}.A_logs`, shape: [E, c.states], initial: { kind: "state-logs" } },
    { name: `${scan}.Ds`, shape: [E], initial: constant(1) },
    ...norm("assm.out_norm", E),
    ...linear("assm.out_proj", C, E),
    ...conv("assm.in_proj.0", [E, C, 1, 1]),
    ...conv("assm.CPE.0", [E, 1, 3, 3]),
    {
      name: "assm.embeddingB.weight",
      shape: [c.classes, c.promptRank],
      initial: uniform(1 / c.classes),
    },
    ...linear("assm.route.0", c.routerHidden, C),
    ...linear("assm.route.2", c.classes, c.routerHidden),
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
    ...conv("conv_first", [C, 3, 3, 3]),
    ...norm("patch_embed.norm", C),
  ];
  const perLayer = layerSpecs(c);
  c.depths.forEach((depth, group) => {
    for (let layer = 0; layer < depth; layer++) {
      const prefix = layerPrefix(group, layer);
      specs.push(...perLayer.map((spec) => ({ ...spec, name: prefix + spec.name })));
    }
    specs.push(...conv(`layers.${group}.conv`, [C, C, 3, 3]));
  });
  return [
    ...specs,
    ...norm("norm", C),
    ...conv("conv_after_body", [C, C, 3, 3]),
    ...conv("upsample.0", [3 * c.scale ** 2, C, 3, 3]),
  ];
}

/** True where the keys look like a MambaIRv2 checkpoint at all. */
export function isMamba(tensors: ReadonlyMap<string, unknown>): boolean {
  return tensors.has(`${layerPrefix(0, 0)}assm.selectiveScan.A_logs`);
}

/** Configuration implied by the shapes of a checkpoint; ERR_CHECKPOINT names a missing key. */
export function inferConfig(tensors: TensorMap): MambaConfig {
  const shape = (name: string, rank: number): readonly number[] => {
    const found = tensors.get(name)?.shape;
    if (!found)
      throw new Spr2qError("ERR_CHECKPOINT", `"${name}" is missing from the weight file.`);
    if (found.length !== rank) {
      throw expected("ERR_CHECKPOINT", `"${name}"`, `${rank} axes`, `shape (${found.join(", ")})`);
    }
    return found;
  };
  const depths: number[] = [];
  for (let group = 0; tensors.has(`layers.${group}.conv.weight`); group++) {
    let layer = 0;
    while (tensors.has(`${layerPrefix(group, layer)}scale1`)) layer++;
    depths.push(layer);
  }
  const first = layerPrefix(0, 0);
  const [classes, promptRank] = shape(`${first}assm.embeddingB.weight`, 2);
  const [table, heads] = shape(`${first}win_mhsa.relative_position_bias_table`, 2);
  const scale = Math.sqrt(shape("upsample.0.weight", 4)[0] / 3);
  if (!Number.isInteger(scale) || scale < 1 || scale > 8) {
    throw expected(
      "ERR_CHECKPOINT",
      '"upsample.0.weight"',
      "3*scale^2 output channels",
      `${shape("upsample.0.weight", 4)[0]}`,
    );
  }
  return {
    scale,
    channels: shape("conv_first.weight", 4)[0],
    depths,
    heads,
    window: (Math.sqrt(table) + 1) / 2,
    hidden: shape(`${first}convffn1.fc1.weight`, 2)[0],
    states: shape(`${first}assm.selectiveScan.A_logs`, 2)[1],
    deltaRank: shape(`${first}assm.selectiveScan.dt_projs_weight`, 3)[2],
    promptRank,
    classes,
    routerHidden: shape(`${first}assm.route.0.weight`, 2)[0],
  };
}

/** Refuses missing, extra and misshapen tensors; the index buffer may be present. */
export function checkTensors(tensors: TensorMap, config: MambaConfig, name: string): void {
  const specs = new Map(parameterSpecs(config).map((spec) => [spec.name, spec.shape]));
  for (const [key, shape] of specs) {
    const found: HostTensor | undefined = tensors.get(key);
    if (!found) {
      throw new Spr2qError(
        "ERR_CHECKPOINT",
        `${name}: "${key}" is missing; expected shape ` + `(${shape.join(", ")}).`,
      );
    }
    if (found.shape.join() !== shape.join()) {
      const turned = [...found.shape].reverse().join() === shape.join();
      throw expected(
        "ERR_CHECKPOINT",
        `${name}: "${key}"`,
        `shape (${shape.join(", ")})`,
        `(${found.shape.join(", ")})`,
        turned ? "Was the checkpoint saved transposed?" : "",
      );
    }
  }
  for (const key of tensors.keys()) {
    if (!specs.has(key) && key !== "relative_position_index_SA") {
      throw new Spr2qError(
        "ERR_CHECKPOINT",
        `${name}: unexpected tensor "${key}"; a network with ` +
          `depths ${config.depths.join(",")} has ${specs.size} tensors and none of that name.`,
      );
    }
  }
}
