/**
 * The op vocabulary on graphs: one entry per op, forward beside backward. Shapes, equations and
 * operand orders are those of native/core/ops.hpp. Tensors are token-major; `rows` counts tokens of
 * the whole batch.
 */
import { type Graph, Var } from "./autograd.ts";
import type { F32, I32 } from "./binding.ts";

/** Batch, height and width of a token-major feature map. */
export interface Grid {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
}

/** y = x W^T + b; x (rows, in), weight (out, in), bias (out) or null. */
export function linear(g: Graph, x: Var, weight: Var, bias: Var | null): Var {
  const [out, cols] = [weight.shape[0], weight.size / weight.shape[0]];
  const rows = x.size / cols;
  const y = new Var(g.floats(rows * out), [rows, out]);
  g.run("linear", x.data, weight.data, bias?.data ?? null, y.data, rows, cols, out);
  return g.record(y, [x, weight, bias], (gy) => {
    const gx = x.requiresGrad ? linearGradInput(g, gy, weight.data, rows, cols, out) : null;
    if (!weight.requiresGrad && !bias?.requiresGrad) return [gx, null, null];
    return [gx, ...linearGradWeight(g, gy, x.data, bias !== null, rows, cols, out)];
  });
}

export function linearGradInput(
  g: Graph,
  gy: F32,
  weight: F32,
  rows: number,
  cols: number,
  out: number,
): F32 {
  const gx = g.floats(rows * cols);
  g.run("linearGradInput", gy, weight, gx, rows, cols, out);
  return gx;
}

export function linearGradWeight(
  g: Graph,
  gy: F32,
  x: F32,
  withBias: boolean,
  rows: number,
  cols: number,
  out: number,
): [F32, F32 | null] {
  const gweight = g.floats(out * cols);
  const gbias = withBias ? g.floats(out) : null;
  g.run("linearGradWeight", gy, x, gweight, gbias, rows, cols, out);
  return [gweight, gbias];
}

/** 3x3 convolution with zero padding; weight (out, in, 3, 3). */
export function conv2d(g: Graph, x: Var, weight: Var, bias: Var, grid: Grid): Var {
  const [out, cin, kernel] = weight.shape;
  const { batch, height, width } = grid;
  const rows = batch * height * width;
  const y = new Var(g.floats(rows * out), [rows, out]);
  const sides = [batch, height, width, cin, out, kernel];
  g.run("conv2d", x.data, weight.data, bias.data, y.data, ...sides);
  return g.record(y, [x, weight, bias], (gy) => {
    const gx = x.requiresGrad ? g.floats(rows * cin) : null;
    if (gx) g.run("conv2dGradInput", gy, weight.data, gx, ...sides);
    if (!weight.requiresGrad) return [gx, null, null];
    const gweight = g.floats(weight.size);
    const gbias = g.floats(out);
    g.run("conv2dGradWeight", gy, x.data, gweight, gbias, ...sides);
    return [gx, gweight, gbias];
  });
}

/** Depth-wise convolution, zero padding; weight (channels, 1, k, k). */
export function depthwiseConv(g: Graph, x: Var, weight: Var, bias: Var, grid: Grid): Var {
  const channels = weight.shape[0];
  const kernel = weight.shape[weight.shape.length - 1];
  const sides = [grid.batch, grid.height, grid.width, channels, kernel];
  const y = new Var(g.floats(x.size), x.shape);
  g.run("depthwiseConv", x.data, weight.data, bias.data, y.data, ...sides);
  return g.record(y, [x, weight, bias], (gy) => [
    x.requiresGrad ? depthwiseGradInput(g, gy, weight.data, sides) : null,
    ...(weight.requiresGrad ? depthwiseGradWeight(g, gy, x.data, sides) : [null, null]),
  ]);
}

export function depthwiseGradInput(g: Graph, gy: F32, weight: F32, sides: number[]): F32 {
  const gx = g.floats(gy.length);
  g.run("depthwiseConvGradInput", gy, weight, gx, ...sides);
  return gx;
}

export function depthwiseGradWeight(g: Graph, gy: F32, x: F32, sides: number[]): [F32, F32] {
  const gweight = g.floats(sides[3] * sides[4] * sides[4]);
  const gbias = g.floats(sides[3]);
  g.run("depthwiseConvGradWeight", gy, x, gweight, gbias, ...sides);
  return [gweight, gbias];
}

export function layerNorm(g: Graph, x: Var, weight: Var, bias: Var): Var {
  const channels = weight.size;
  const rows = x.size / channels;
  const y = new Var(g.floats(x.size), x.shape);
  g.run("layerNorm", x.data, weight.data, bias.data, y.data, rows, channels);
  return g.record(y, [x, weight, bias], (gy) => {
    const [gx, gweight, gbias] = [g.floats(x.size), g.floats(channels), g.floats(channels)];
    g.run("layerNormGrad", x.data, weight.data, gy, gx, gweight, gbias, rows, channels);
    return [gx, gweight, gbias];
  });
}

export function gelu(g: Graph, x: Var): Var {
  const y = new Var(g.floats(x.size), x.shape);
  g.run("gelu", x.data, y.data, x.size);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run("geluGrad", x.data, gy, gx, x.size);
    return [gx];
  });
}

/** x * sigmoid(gate). */
export function sigmoidGate(g: Graph, x: Var, gate: Var): Var {
  const y = new Var(g.floats(x.size), x.shape);
  g.run("sigmoidGate", x.data, gate.data, y.data, x.size);
  return g.record(y, [x, gate], (gy) => {
    const [gx, ggate] = [g.floats(x.size), g.floats(x.size)];
    g.run("sigmoidGateGrad", x.data, gate.data, gy, gx, ggate, x.size);
    return [gx, ggate];
  });
}

export function multiply(g: Graph, a: Var, b: Var): Var {
  const y = new Var(g.floats(a.size), a.shape);
  g.run("multiply", a.data, b.data, y.data, a.size);
  return g.record(y, [a, b], (gy) => {
    const [ga, gb] = [g.floats(a.size), g.floats(a.size)];
    g.run("multiply", gy, b.data, ga, a.size);
    g.run("multiply", gy, a.data, gb, a.size);
    return [ga, gb];
  });
}

export function add(g: Graph, a: Var, b: Var): Var {
  const y = new Var(g.floats(a.size), a.shape);
  g.run("add", a.data, b.data, y.data, a.size);
  return g.record(y, [a, b], (gy) => [gy, gy]);
}

/** factor * x for a constant factor. */
export function scale(g: Graph, x: Var, factor: number): Var {
  const y = new Var(g.floats(x.size), x.shape);
  g.run("scale", x.data, y.data, x.size, factor);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run("scale", gy, gx, x.size, factor);
    return [gx];
  });
}

/** scale(channels) * x + a. */
export function scaleAdd(g: Graph, x: Var, factor: Var, a: Var): Var {
  const channels = factor.size;
  const rows = x.size / channels;
  const y = new Var(g.floats(x.size), x.shape);
  g.run("scaleAdd", x.data, factor.data, a.data, y.data, rows, channels);
  return g.record(y, [x, factor, a], (gy) => {
    const [gx, gfactor] = [g.floats(x.size), g.floats(channels)];
    g.run("scaleAddGrad", x.data, factor.data, gy, gx, gfactor, rows, channels);
    return [gx, gfactor, gy];
  });
}

/** Softmax of each row of a few logits (rows, columns). */
export function softmax(g: Graph, x: Var): Var {
  return softmaxes(g, [x])[0];
}

/** The same of many tensors with as many columns each, in one call. */
export function softmaxes(g: Graph, xs: readonly Var[]): Var[] {
  if (xs.length === 0) return [];
  const columns = xs[0].shape[xs[0].shape.length - 1];
  const ys = xs.map((x) => new Var(g.floats(x.size), x.shape));
  g.run("softmax", listOf(xs), listOf(ys), columns);
  g.recordEach(ys, [xs], (used, gys) => {
    const gxs = gys.map(({ length }) => g.floats(length));
    g.run("softmaxGrad", listOf(ys, used), gys, gxs, columns);
    return [gxs];
  });
  return ys;
}

/** The data of all tensors, or of those at some places, as an operand of an op over lists. */
export const listOf = (vars: readonly Var[], places?: readonly number[]): F32[] =>
  (places ? places.map((i) => vars[i]) : vars).map(({ data }) => data);

/** Columns start ... start + count - 1 of x (rows, columns). */
export function sliceColumns(g: Graph, x: Var, start: number, count: number): Var {
  const [rows, columns] = [x.size / x.shape[x.shape.length - 1], x.shape[x.shape.length - 1]];
  const y = new Var(g.floats(rows * count), [rows, count]);
  g.run("sliceColumns", x.data, y.data, rows, columns, start, count);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run("sliceColumnsGrad", gy, gx, rows, columns, start, count);
    return [gx];
  });
}

export function transpose(g: Graph, x: Var): Var {
  const [rows, columns] = x.shape;
  const y = new Var(g.floats(x.size), [columns, rows]);
  g.run("transpose", x.data, y.data, rows, columns);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run("transpose", gy, gx, columns, rows);
    return [gx];
  });
}

/** -exp(x), the A of the state-space model from its logarithm. */
export function negativeExp(g: Graph, x: Var): Var {
  const y = new Var(g.floats(x.size), x.shape);
  g.run("negativeExp", x.data, y.data, x.size);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run("multiply", gy, y.data, gx, x.size);
    return [gx];
  });
}

/** y[i] = x[order[i]] for a permutation of the rows. */
export function gatherRows(g: Graph, x: Var, order: I32): Var {
  return permuteRows(g, x, order, "gatherRows", "scatterRows");
}

/** y[order[i]] = x[i]: the inverse of gatherRows. */
export function scatterRows(g: Graph, x: Var, order: I32): Var {
  return permuteRows(g, x, order, "scatterRows", "gatherRows");
}

type Permutation = "gatherRows" | "scatterRows";

function permuteRows(g: Graph, x: Var, order: I32, op: Permutation, inverse: Permutation): Var {
  const channels = x.shape[x.shape.length - 1];
  const rows = x.size / channels;
  const y = new Var(g.floats(x.size), x.shape);
  g.run(op, x.data, order, y.data, rows, channels);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run(inverse, gy, order, gx, rows, channels);
    return [gx];
  });
}

/**
 * Mirrored padding below and right to (height, width), minus mean; x (batch, h, w, 3). The edge is
 * repeated ("symmetric") or not ("reflect").
 */
export function padImage(
  g: Graph,
  x: Var,
  mean: F32,
  height: number,
  width: number,
  padding: "symmetric" | "reflect" = "symmetric",
): Var {
  const [batch, h, w, channels] = x.shape;
  const y = new Var(g.floats(batch * height * width * channels), [batch, height, width, channels]);
  const sides = [batch, h, w, height, width, channels, padding === "reflect" ? 1 : 0];
  g.run("padImage", x.data, mean, y.data, ...sides);
  return y;
}

/** Pixel shuffle, crop to (outHeight, outWidth), plus mean. */
export function pixelShuffle(
  g: Graph,
  x: Var,
  mean: F32,
  grid: Grid,
  factor: number,
  outHeight: number,
  outWidth: number,
): Var {
  const shape = [grid.batch, outHeight, outWidth, mean.length];
  const y = new Var(g.floats(grid.batch * outHeight * outWidth * mean.length), shape);
  const sides = [grid.batch, grid.height, grid.width, mean.length, factor, outHeight, outWidth];
  g.run("pixelShuffle", x.data, mean, y.data, ...sides);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    g.run("pixelShuffleGrad", gy, gx, ...sides);
    return [gx];
  });
}
