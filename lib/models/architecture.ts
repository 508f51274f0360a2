/**
 * A family of networks: names, shapes, one layer's forward pass, the modules that are coded.
 * Quantisation, training, packing and planning know a family only by what is written here. A
 * further one is one more file with an Architecture, and its line in registry.ts.
 */
import type { Graph, Var } from "../autograd.ts";
import type { TensorMap } from "../io/host_tensor.ts";
import type { WindowShape } from "../nn/attention.ts";
import type { Router } from "../nn/routing.ts";
import type { Network } from "./network.ts";
import type { ParameterSpec } from "./parameters.ts";
import type { Sites } from "./sites.ts";

/** What every configuration has; an architecture adds its own sizes. */
export interface NetworkConfig {
  readonly scale: number;
  readonly channels: number;
  /** Layers of each group. */
  readonly depths: readonly number[];
  readonly heads: number;
  readonly window: number;
  /** Width of the MLP. */
  readonly hidden: number;
}

/** A module of a layer whose weight is stored as codes where its scope quantises it. */
export interface CodedModule {
  /** Its name below the layer's prefix, q, k and v apart. */
  readonly name: string;
  /** Its weight tensor below the layer's prefix. */
  readonly tensor: string;
  /** linear and depthwise multiply codes; values enter float arithmetic on their grid. */
  readonly kind: "linear" | "depthwise" | "values";
  /** Carries a group of rectifiers. */
  readonly rectified: boolean;
  /** Its input may have an offset per channel. */
  readonly offsets: boolean;
  /** Quantised at scope `released` only. */
  readonly releasedOnly: boolean;
}

/** Makes a {@link CodedModule}: `parts` override linear, unrectified, with offsets, every scope. */
export function codedModule(
  name: string,
  tensor = `${name}.weight`,
  parts: Partial<CodedModule> = {},
): CodedModule {
  const base = { kind: "linear", rectified: false, offsets: true, releasedOnly: false } as const;
  return { name, tensor, ...base, ...parts };
}

/** A quantiser of a layer that belongs to no module, such as that of the attention's q. */
export interface ExtraSite {
  readonly name: string;
  /** Lower and upper bound in one vector. */
  readonly joint: boolean;
  /** Where it exists: always, at scope `released`, or with probabilities coded by Eq. 1. */
  readonly when: "always" | "released" | "uniform-probabilities";
}

/** Operands of a product, for the accounts. */
export type Operands = "float" | "codes" | "probabilities" | "released-codes";

/** Multiply-accumulates of one kind of operation. */
export interface MacItem {
  readonly name: string;
  readonly instances: number;
  /** MACs of one instance: per token, or in all where `once` is true. */
  readonly macs: number;
  readonly once: boolean;
  readonly operands: Operands;
}

/** What one layer's forward pass is given. */
export interface LayerPlace extends WindowShape {
  /** Key prefix of the layer's tensors. */
  readonly prefix: string;
  /** Number of the layer in the network, from 0. */
  readonly index: number;
}

/** A family of networks. Methods are functions of their arguments alone. */
export interface Architecture<C extends NetworkConfig = NetworkConfig> {
  /** Its name in metadata and on the command line. */
  readonly name: string;
  /** Its name in sentences. */
  readonly title: string;
  /** Padding to whole windows inside the network: edge repeated (symmetric) or not (reflect). */
  readonly padding: "symmetric" | "reflect";
  /** True where tokens are routed, so that seed and mode of the routing matter. */
  readonly routes: boolean;
  /** Coded modules of a layer, in the order of packed files. */
  readonly modules: readonly CodedModule[];
  /** Further sites of a layer, in the order of packed files. */
  readonly extraSites: readonly ExtraSite[];
  /** The published network of `scale`. */
  lightConfig(scale: number): C;
  /** What is wrong with a configuration of whole numbers ("channels divisible by heads"), or null. */
  configProblem(config: C): string | null;
  /** Sizes beyond those of {@link NetworkConfig}, in words; may be empty. */
  describe(config: C): string;
  /** True where the keys look like a checkpoint of this family. */
  recognises(tensors: ReadonlyMap<string, unknown>): boolean;
  /** Configuration implied by a checkpoint's shapes; ERR_CHECKPOINT names a missing key. */
  inferConfig(tensors: TensorMap): C;
  /** True for tensors that official checkpoints hold beside the parameters. */
  isBuffer(key: string): boolean;
  /** Every tensor of the network, in checkpoint order. */
  parameterSpecs(config: C): ParameterSpec[];
  /** Key prefix of one layer's tensors. */
  layerPrefix(group: number, layer: number): string;
  /** One layer on tokens x (rows, channels). */
  layer(g: Graph, net: Network<C>, at: LayerPlace, x: Var, sites: Sites, router: Router): Var;
  /** MACs of a whole pass by operation. */
  macs(config: C): MacItem[];
  /** Length to which a side is mirrored before the network sees an image (published numbers). */
  mirroredSide(length: number, config: C): number;
}
