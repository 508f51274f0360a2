/**
 * The places of a network where a quantiser may sit. A model's forward pass names the place and
 * hands over its tensors; what happens there is the implementation's business.
 */
import { type Graph, Var } from "../autograd.ts";
import { type WindowShape, windowAttention } from "../nn/attention.ts";
import { selectiveScan } from "../nn/selective_scan.ts";
import * as ops from "../ops.ts";
import type { LayerWeights, Network } from "./network.ts";

/** `key` is the checkpoint name of the module without ".weight". */
export interface Sites {
  /** Tells the token grid of the pass that begins, in whole windows of side `window`. */
  begin?(grid: ops.Grid, window: number): void;
  /** Readies what a pass of `g` through all layers of `net` can have at once. */
  prepare?(g: Graph, net: Network): void;
  linear(g: Graph, key: string, x: Var, weight: Var, bias: Var | null): Var;
  /** What stands in place of the GELU behind the module `key`; null leaves it. */
  activation?(g: Graph, key: string, x: Var): Var | null;
  depthwise(g: Graph, key: string, x: Var, weight: Var, bias: Var, grid: ops.Grid): Var;
  attention(
    g: Graph,
    key: string,
    qkv: readonly [Var, Var, Var],
    table: Var,
    shape: WindowShape,
  ): Var;
  /** Prompt pool P = embeddingB embeddingA, (classes, states). */
  promptPool(g: Graph, prefix: string, embeddingB: Var, embeddingA: Var): Var;
  /** Projections and scan of u (sorted tokens); `prompt` adds the prompts to C. */
  scan(
    g: Graph,
    prefix: string,
    u: Var,
    weights: LayerWeights,
    batch: number,
    prompt: (c: Var) => Var,
  ): Var;
}

const SCAN = "assm.selectiveScan";

/** Rank of delta's projection and number of states, from one layer's shapes. */
export function scanSizes(weights: LayerWeights): { rank: number; states: number } {
  return {
    rank: weights(`${SCAN}.dt_projs_weight`).shape[2],
    states: weights(`${SCAN}.A_logs`).shape[1],
  };
}

/** A checkpoint tensor with a leading axis of one, as a matrix over the same memory. */
export function asMatrix(weight: Var): Var {
  return new MatrixView(weight);
}

/** Shares data and gradient with the tensor it views. */
class MatrixView extends Var {
  readonly #whole: Var;

  constructor(whole: Var) {
    super(whole.data, whole.shape.slice(1), whole.requiresGrad);
    this.#whole = whole;
    Object.defineProperty(this, "grad", {
      get: () => this.#whole.grad,
      set: (value) => {
        this.#whole.grad = value;
      },
    });
  }
}

/** The full-precision network. */
export class FloatSites implements Sites {
  linear(g: Graph, _key: string, x: Var, weight: Var, bias: Var | null): Var {
    return ops.linear(g, x, weight, bias);
  }

  depthwise(g: Graph, _key: string, x: Var, weight: Var, bias: Var, grid: ops.Grid): Var {
    return ops.depthwiseConv(g, x, weight, bias, grid);
  }

  attention(
    g: Graph,
    _key: string,
    qkv: readonly [Var, Var, Var],
    table: Var,
    shape: WindowShape,
  ): Var {
    return windowAttention(g, qkv, table, shape);
  }

  promptPool(g: Graph, _prefix: string, embeddingB: Var, embeddingA: Var): Var {
    return ops.linear(g, embeddingB, ops.transpose(g, embeddingA), null);
  }

  scan(
    g: Graph,
    _prefix: string,
    u: Var,
    weights: LayerWeights,
    batch: number,
    prompt: (c: Var) => Var,
  ): Var {
    const { rank, states } = scanSizes(weights);
    const A = ops.negativeExp(g, weights(`${SCAN}.A_logs`));
    // From here on each token by itself, so that a plan takes a tile of u through all of it.
    const projected = ops.linear(g, u, asMatrix(weights(`${SCAN}.x_proj_weight`)), null);
    const rho = ops.sliceColumns(g, projected, 0, rank);
    const operands = {
      u,
      delta: ops.linear(g, rho, asMatrix(weights(`${SCAN}.dt_projs_weight`)), null),
      A,
      B: ops.sliceColumns(g, projected, rank, states),
      C: prompt(ops.sliceColumns(g, projected, rank + states, states)),
      D: weights(`${SCAN}.Ds`),
      deltaBias: asMatrix(weights(`${SCAN}.dt_projs_bias`)),
    };
    return selectiveScan(g, operands, batch);
  }
}
