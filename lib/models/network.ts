/**
 * What every network here is: an Architecture with a configuration and weights. The frame is common
 * to the family of SwinIR: shallow convolution, groups of layers with a convolution and a residual
 * each, long skip, pixel shuffle.
 */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { expected } from "../errors.ts";
import { type TensorMap, toFloat32 } from "../io/host_tensor.ts";
import type { Router } from "../nn/routing.ts";
import * as ops from "../ops.ts";
import { floats, floatsFrom, type Memory } from "../tensor.ts";
import type { Architecture, LayerPlace, NetworkConfig } from "./architecture.ts";
import { lazyVar } from "./lazy.ts";
import { checkTensors } from "./parameters.ts";
import type { Sites } from "./sites.ts";

/** Mean colour that the networks subtract (RGB, 0..1). */
export const MEAN: F32 = Float32Array.of(0.4488, 0.4371, 0.404);

/** Reads one layer's tensors by their names inside the layer. */
export type LayerWeights = (name: string) => Var;

/** What a forward pass leaves behind for the losses and for tests. */
export interface Trace {
  /** Output of every layer, then available as gradients' seeds. */
  readonly layers: Var[];
  /** Output of every group, after its convolution and residual. */
  readonly groups: Var[];
  /** What every layer was given, where asked for. */
  readonly entering?: { readonly at: LayerPlace; readonly x: Var }[];
  /** May put an op of its own on a layer's output, to see the gradient that arrives there. */
  readonly watch?: (g: Graph, layer: number, output: Var) => Var;
}

/** A network: architecture, configuration, and weights under their checkpoint names. */
export class Network<C extends NetworkConfig = NetworkConfig> {
  readonly architecture: Architecture<C>;
  readonly config: C;
  readonly weights: Map<string, Var>;
  /** q, k and v rows of each joint projection as tensors of their own, over the same memory. */
  readonly #parts = new Map<string, Var>();
  readonly #placed = new WeakMap<Memory, Network<C>>();

  constructor(architecture: Architecture<C>, config: C, weights: Map<string, Var>) {
    this.architecture = architecture;
    this.config = config;
    this.weights = weights;
    for (const [name, joined] of weights) {
      const match = JOINED.exec(name);
      if (!match) continue;
      const part = joined.size / 3;
      const shape = [joined.shape[0] / 3, ...joined.shape.slice(1)];
      ["q", "k", "v"].forEach((letter, i) => {
        const rows = (): F32 => joined.data.subarray(i * part, (i + 1) * part);
        this.#parts.set(`${match[1]}.${letter}.${match[2]}`, lazyVar(shape, rows));
      });
    }
  }

  /** From a checkpoint's tensors; ERR_CHECKPOINT names the first key that does not fit. */
  static fromTensors<C extends NetworkConfig>(
    architecture: Architecture<C>,
    tensors: TensorMap,
    name: string,
  ): Network<C> {
    const config = architecture.inferConfig(tensors);
    const problem = architecture.configProblem(config);
    if (problem) throw expected("ERR_CHECKPOINT", name, problem, JSON.stringify(config));
    const specs = architecture.parameterSpecs(config);
    checkTensors(tensors, specs, architecture.isBuffer, config.depths, name);
    const weights = specs.map((spec): [string, Var] => [
      spec.name,
      new Var(floatsFrom(toFloat32(tensors.get(spec.name)!)), spec.shape),
    ]);
    return new Network(architecture, config, new Map(weights));
  }

  /**
   * A network of zeros, to be filled (packed files, initialisation). Tensors of which `restores` is
   * true are not there before somebody reads them; `restore` then fills them.
   */
  static empty<C extends NetworkConfig>(
    architecture: Architecture<C>,
    config: C,
    restores: (name: string) => boolean = () => false,
    restore: (name: string) => void = () => {},
  ): Network<C> {
    const specs = architecture.parameterSpecs(config);
    const weights = specs.map(({ name, shape }): [string, Var] => {
      const zeros = (): F32 => floats(shape.reduce((a, b) => a * b, 1));
      const lazy = restores(name);
      return [name, lazy ? lazyVar(shape, zeros, () => restore(name)) : new Var(zeros(), shape)];
    });
    return new Network(architecture, config, new Map(weights));
  }

  /** The same network with a copy of its weights in `memory`, made once; itself in host memory. */
  on(memory: Memory): Network<C> {
    if (!memory.onDevice) return this;
    const known = this.#placed.get(memory);
    if (known) return known;
    const weights = new Map<string, Var>();
    for (const [name, { data, shape }] of this.weights) {
      weights.set(name, new Var(memory.put(data), shape));
    }
    const placed = new Network(this.architecture, this.config, weights);
    for (const [name, leaf] of placed.leaves()) leaf.requiresGrad = this.get(name).requiresGrad;
    this.#placed.set(memory, placed);
    return placed;
  }

  /** Name of the joint projection that a part belongs to; other names are their own. */
  static wholeName(name: string): string {
    return name.replace(/(qkv)\.[qkv]\.(weight|bias)$/, "$1.$2");
  }

  /** A tensor by its checkpoint name, or a part of a joint projection by its own. */
  get(name: string): Var {
    const found = this.#parts.get(name) ?? this.weights.get(name);
    if (!found) throw expected("ERR_CHECKPOINT", "weights", `a tensor "${name}"`, "none");
    return found;
  }

  /** Trainable leaves: a joint projection appears as its q, k and v parts. */
  leaves(): Map<string, Var> {
    const whole = [...this.weights].filter(([name]) => !JOINED.test(name));
    return new Map([...whole, ...this.#parts]);
  }

  get layerCount(): number {
    return this.config.depths.reduce((a, b) => a + b, 0);
  }

  /** Key prefixes of all layers, in their order. */
  get layerPrefixes(): string[] {
    return layerPrefixes(this.architecture, this.config);
  }

  /**
   * Upscales images x (batch, height, width, 3) in 0..1; returns (batch, s*height, s*width, 3),
   * unclamped. ERR_SHAPE where an image is too small for its padding to whole windows.
   */
  forward(g: Graph, x: Var, sites: Sites, router: Router, trace?: Trace): Var {
    const { scale, depths, window, heads } = this.config;
    const [batch, h, w] = x.shape;
    const { height, width } = this.#padded(h, w);
    const grid = { batch, height, width };
    sites.begin?.(grid, window);
    sites.prepare?.(g, this);
    const conv = (name: string, input: Var): Var =>
      ops.conv2d(g, input, this.get(`${name}.weight`), this.get(`${name}.bias`), grid);
    const norm = (name: string, input: Var): Var =>
      ops.layerNorm(g, input, this.get(`${name}.weight`), this.get(`${name}.bias`));
    const { padding } = this.architecture;
    const mean = g.constant(MEAN);

    const first = g.scope(() =>
      conv("conv_first", ops.padImage(g, x, mean, height, width, padding)),
    );
    let tokens = norm("patch_embed.norm", first);
    let index = 0;
    depths.forEach((depth, group) => {
      const entering = tokens;
      for (let layer = 0; layer < depth; layer++) {
        const prefix = this.architecture.layerPrefix(group, layer);
        const shift = layer % 2 === 0 ? 0 : window / 2;
        const at: LayerPlace = { ...grid, heads, window, shift, prefix, index: index++ };
        trace?.entering?.push({ at, x: tokens });
        tokens = g.checkpoint(tokens, (inner, input) =>
          this.architecture.layer(inner, this, at, input, sites, router),
        );
        tokens = trace?.watch?.(g, at.index, tokens) ?? tokens;
        trace?.layers.push(tokens);
      }
      tokens = g.scope(() => ops.add(g, conv(`layers.${group}.conv`, tokens), entering));
      trace?.groups.push(tokens);
    });
    return g.scope(() => {
      const body = ops.add(g, conv("conv_after_body", norm("norm", tokens)), first);
      return ops.pixelShuffle(g, conv("upsample.0", body), mean, grid, scale, h * scale, w * scale);
    });
  }

  /** Sides in whole windows; mirroring has only so many rows and columns to give. */
  #padded(h: number, w: number): { height: number; width: number } {
    const { window } = this.config;
    const height = Math.ceil(h / window) * window;
    const width = Math.ceil(w / window) * window;
    const most = (side: number): number =>
      this.architecture.padding === "reflect" ? 2 * side - 1 : 2 * side;
    if (height > most(h) || width > most(w)) {
      const least = this.architecture.padding === "reflect" ? window / 2 + 1 : window / 2;
      const wanted = `sides of at least ${least} pixels`;
      throw expected("ERR_SHAPE", "input image", wanted, `${w}x${h}`);
    }
    return { height, width };
  }
}

/** Joint projections of q, k and v, whose rows are theirs in that order. */
const JOINED = /^(.*qkv)\.(weight|bias)$/;

/** Key prefixes of all layers of a network, in their order. */
export function layerPrefixes(architecture: Architecture, config: NetworkConfig): string[] {
  return config.depths.flatMap((depth, group) =>
    Array.from({ length: depth }, (_, layer) => architecture.layerPrefix(group, layer)),
  );
}
