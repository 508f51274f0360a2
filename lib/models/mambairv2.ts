/**
 * MambaIRv2-light (window attention and an attentive state-space module in every layer), written
 * once for training, inference and tracing. Where a tensor may be quantised, the forward pass asks
 * `sites`: FloatSites (lib/models/sites.ts) computes in float, lib/quant/sites.ts on codes.
 */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { expected } from "../errors.ts";
import { type TensorMap, toFloat32 } from "../io/host_tensor.ts";
import type { WindowShape } from "../nn/attention.ts";
import { addPrompt, type Routed, type Router, sortTokens } from "../nn/routing.ts";
import * as ops from "../ops.ts";
import { floats, floatsFrom } from "../tensor.ts";
import {
  checkTensors,
  inferConfig,
  layerPrefix,
  type MambaConfig,
  parameterSpecs,
} from "./parameters.ts";
import type { Sites } from "./sites.ts";

/** Mean colour that the network subtracts (RGB, 0..1). */
export const MEAN: F32 = Float32Array.of(0.4488, 0.4371, 0.404);

/** Reads one layer's tensors by their names inside the layer. */
export type LayerWeights = (name: string) => Var;

/** A network: its configuration and its weights under their checkpoint names. */
export class MambaIRv2 {
  readonly config: MambaConfig;
  readonly weights: Map<string, Var>;
  /** q, k and v rows of each wqkv as tensors of their own, over the same memory. */
  readonly #parts = new Map<string, Var>();

  constructor(config: MambaConfig, weights: Map<string, Var>) {
    this.config = config;
    this.weights = weights;
    const C = config.channels;
    for (const [name, joined] of weights) {
      const match = /^(.*wqkv)\.(weight|bias)$/.exec(name);
      if (!match) continue;
      const part = joined.size / 3;
      ["q", "k", "v"].forEach((letter, i) => {
        const data = joined.data.subarray(i * part, (i + 1) * part);
        const shape = match[2] === "weight" ? [C, C] : [C];
        this.#parts.set(`${match[1]}.${letter}.${match[2]}`, new Var(data, shape));
      });
    }
  }

  /** From a checkpoint's tensors; ERR_CHECKPOINT names the first key that does not fit. */
  static fromTensors(tensors: TensorMap, name: string): MambaIRv2 {
    const config = inferConfig(tensors);
    checkTensors(tensors, config, name);
    const weights = new Map<string, Var>();
    for (const spec of parameterSpecs(config)) {
      const data = floatsFrom(toFloat32(tensors.get(spec.name)!));
      weights.set(spec.name, new Var(data, spec.shape));
    }
    return new MambaIRv2(config, weights);
  }

  /** A network of zeros, to be filled (packed files, initialisation). */
  static empty(config: MambaConfig): MambaIRv2 {
    const specs = parameterSpecs(config);
    const weights = specs.map((s): [string, Var] => [
      s.name,
      new Var(floats(s.shape.reduce((a, b) => a * b, 1)), s.shape),
    ]);
    return new MambaIRv2(config, new Map(weights));
  }

  get(name: string): Var {
    const found = this.#parts.get(name) ?? this.weights.get(name);
    if (!found) throw expected("ERR_CHECKPOINT", "weights", `a tensor "${name}"`, "none");
    return found;
  }

  /** Trainable leaves: wqkv appears as its q, k and v parts. */
  leaves(): Map<string, Var> {
    const whole = [...this.weights].filter(([name]) => !/wqkv\.(weight|bias)$/.test(name));
    return new Map([...whole, ...this.#parts]);
  }

  get layerCount(): number {
    return this.config.depths.reduce((a, b) => a + b, 0);
  }
}

/** What a forward pass leaves behind for the losses and for tests. */
export interface Trace {
  /** Output of every layer, then available as gradients' seeds. */
  readonly layers: Var[];
  /** Output of every group, after its convolution and residual. */
  readonly groups: Var[];
}

/**
 * Upscales images x (batch, height, width, 3) in 0..1; returns (batch, s*height, s*width, 3),
 * unclamped. Sides of at least half a window are needed for the symmetric padding (ERR_SHAPE).
 */
export function forward(
  g: Graph,
  net: MambaIRv2,
  x: Var,
  sites: Sites,
  router: Router,
  trace?: Trace,
): Var {
  const { window, scale, depths } = net.config;
  const [batch, h, w] = x.shape;
  const height = Math.ceil(h / window) * window;
  const width = Math.ceil(w / window) * window;
  if (height > 2 * h || width > 2 * w) {
    throw expected(
      "ERR_SHAPE",
      "input image",
      `sides of at least ${window / 2} pixels`,
      `${w}x${h}`,
    );
  }
  const grid = { batch, height, width };
  const conv = (name: string, input: Var): Var =>
    ops.conv2d(g, input, net.get(`${name}.weight`), net.get(`${name}.bias`), grid);
  const norm = (name: string, input: Var): Var =>
    ops.layerNorm(g, input, net.get(`${name}.weight`), net.get(`${name}.bias`));

  const first = g.scope(() => conv("conv_first", ops.padImage(g, x, MEAN, height, width)));
  let tokens = norm("patch_embed.norm", first);
  let index = 0;
  depths.forEach((depth, group) => {
    const entering = tokens;
    for (let layer = 0; layer < depth; layer++) {
      const prefix = layerPrefix(group, layer);
      const shift = layer % 2 === 0 ? 0 : window / 2;
      const at = index++;
      const block = (inner: Graph, input: Var): Var =>
        attentiveLayer(
          inner,
          net,
          prefix,
          at,
          input,
          { ...grid, heads: net.config.heads, window, shift },
          sites,
          router,
        );
      tokens = g.checkpoint(tokens, block);
      trace?.layers.push(tokens);
    }
    tokens = g.scope(() => ops.add(g, conv(`layers.${group}.conv`, tokens), entering));
    trace?.groups.push(tokens);
  });
  return g.scope(() => {
    const body = ops.add(g, conv("conv_after_body", norm("norm", tokens)), first);
    return ops.pixelShuffle(g, conv("upsample.0", body), MEAN, grid, scale, h * scale, w * scale);
  });
}

/** One AttentiveLayer: window attention and gated MLP, then the state-space module and another. */
function attentiveLayer(
  g: Graph,
  net: MambaIRv2,
  prefix: string,
  index: number,
  x: Var,
  shape: WindowShape,
  sites: Sites,
  router: Router,
): Var {
  const weights: LayerWeights = (name) => net.get(prefix + name);
  const norm = (name: string, input: Var): Var =>
    ops.layerNorm(g, input, weights(`${name}.weight`), weights(`${name}.bias`));
  const linear = (name: string, input: Var): Var =>
    sites.linear(g, prefix + name, input, weights(`${name}.weight`), weights(`${name}.bias`));

  const first = g.scope(() => {
    const attended = g.scope(() => {
      const n = norm("norm1", x);
      const q = ops.scale(g, linear("wqkv.q", n), (net.config.channels / shape.heads) ** -0.5);
      const qkv = [q, linear("wqkv.k", n), linear("wqkv.v", n)] as const;
      const table = weights("win_mhsa.relative_position_bias_table");
      const mixed = sites.attention(g, `${prefix}win_mhsa`, qkv, table, shape);
      return ops.add(g, linear("win_mhsa.proj", mixed), x);
    });
    const mlp = g.scope(() =>
      gatedMlp(g, prefix, "convffn1", norm("norm2", attended), shape, weights, sites),
    );
    return ops.scaleAdd(g, x, weights("scale1"), ops.add(g, mlp, attended));
  });
  const second = g.scope(() => {
    const n = norm("norm3", first);
    return ops.add(g, stateSpace(g, net, prefix, index, n, shape, weights, sites, router), first);
  });
  const mlp = g.scope(() =>
    gatedMlp(g, prefix, "convffn2", norm("norm4", second), shape, weights, sites),
  );
  return ops.scaleAdd(g, first, weights("scale2"), ops.add(g, mlp, second));
}

/** fc1, GELU, then the first half gated by a depth-wise convolution of the normed second half. */
function gatedMlp(
  g: Graph,
  prefix: string,
  name: string,
  z: Var,
  grid: ops.Grid,
  weights: LayerWeights,
  sites: Sites,
): Var {
  const linear = (part: string, input: Var): Var =>
    sites.linear(
      g,
      `${prefix}${name}.${part}`,
      input,
      weights(`${name}.${part}.weight`),
      weights(`${name}.${part}.bias`),
    );
  const u = ops.gelu(g, linear("fc1", z));
  const half = u.shape[1] / 2;
  const normed = ops.layerNorm(
    g,
    ops.sliceColumns(g, u, half, half),
    weights(`${name}.sg.norm.weight`),
    weights(`${name}.sg.norm.bias`),
  );
  const gate = sites.depthwise(
    g,
    `${prefix}${name}.sg.conv`,
    normed,
    weights(`${name}.sg.conv.weight`),
    weights(`${name}.sg.conv.bias`),
    grid,
  );
  return linear("fc2", ops.multiply(g, ops.sliceColumns(g, u, 0, half), gate));
}

/** The attentive state-space module: route, gate, sort, scan with prompts, project, unsort. */
function stateSpace(
  g: Graph,
  net: MambaIRv2,
  prefix: string,
  index: number,
  z: Var,
  grid: ops.Grid,
  weights: LayerWeights,
  sites: Sites,
  router: Router,
): Var {
  const linear = (name: string, input: Var): Var =>
    sites.linear(g, prefix + name, input, weights(`${name}.weight`), weights(`${name}.bias`));
  const rows = z.size / z.shape[1];
  const routed: Routed = router.route(g, index, grid.batch, rows, () =>
    linear("assm.route.2", ops.gelu(g, linear("assm.route.0", z))),
  );
  const v = linear("assm.in_proj.0", z);
  const gate = sites.depthwise(
    g,
    `${prefix}assm.CPE.0`,
    v,
    weights("assm.CPE.0.weight"),
    weights("assm.CPE.0.bias"),
    grid,
  );
  const order = sortTokens(g, routed.classes, grid.batch, net.config.classes);
  const u = ops.gatherRows(g, ops.sigmoidGate(g, v, gate), order);
  const pool = sites.promptPool(
    g,
    prefix,
    weights("assm.embeddingB.weight"),
    weights("embeddingA.weight"),
  );
  // The prompt stays in raster order while u is sorted: the released weights need it.
  const y = sites.scan(g, prefix, u, weights, grid.batch, (c) => addPrompt(g, c, pool, routed));
  const normed = ops.layerNorm(
    g,
    y,
    weights("assm.out_norm.weight"),
    weights("assm.out_norm.bias"),
  );
  return ops.scatterRows(g, linear("assm.out_proj", normed), order);
}
