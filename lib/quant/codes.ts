/**
 * Quantisers on graphs (Eq. 1) and the integer products on their codes. A quantiser is a pair of
 * trainable bounds; its output is a Codes value: bytes 0 ... 2^bits - 1 whose gradient is that of
 * the values they stand for.
 */
import { type Graph, Var } from "../autograd.ts";
import type { F32, U8 } from "../binding.ts";
import { isOnDevice } from "../device.ts";
import * as ops from "../ops.ts";

/**
 * tensor: one range; row: one per row (output channel); column: offsets and one common range; token:
 * one per place of a token, spread to rows before anything is coded (token_ranges.ts).
 */
export type Granularity = "tensor" | "row" | "column" | "token";
const GRANULARITY = { tensor: 0, row: 1, column: 2, token: 1 } as const;

/** Bounds of one quantiser. For "column", `upper` holds the one range: x ~ lower[c] + range q/L. */
export interface Bounds {
  readonly lower: Var;
  readonly upper: Var;
  readonly granularity: Granularity;
  readonly bits: number;
}

/** Lower and upper bound in one vector: the form in which attention and scan take theirs. */
export function jointBounds(lower: number, upper: number, bits: number): Bounds {
  const both: F32 = Float32Array.of(lower, upper);
  const joint = new Var(both, [2], true);
  return { lower: joint, upper: joint, granularity: "tensor", bits };
}

/** Codes of a (rows, columns) matrix under `bounds`. */
export class Codes extends Var {
  readonly codes: U8;
  readonly bounds: Bounds;
  /** Width at which codes are stored: 8, or `bits` for packed weights of a frozen model. */
  readonly storageBits: number;
  /** The values that the codes stand for, where they were made together (weights of a step). */
  readonly values: F32 | null;

  constructor(
    codes: U8,
    shape: readonly number[],
    bounds: Bounds,
    storageBits = 8,
    values: F32 | null = null,
  ) {
    const none = isOnDevice(codes) ? codes.subarray(0, 0) : new Float32Array(codes.buffer, 0, 0);
    super(none as F32, shape);
    this.codes = codes;
    this.bounds = bounds;
    this.storageBits = storageBits;
    this.values = values;
  }

  get bits(): number {
    return this.bounds.bits;
  }

  /** The values that the codes stand for. */
  dequantise(g: Graph): F32 {
    if (this.values) return this.values;
    const y = g.floats(this.size);
    const { lower, upper } = this.bounds;
    g.run("dequantize", this.codes, lower.data, upper.data, y, ...matrix(this, this.bounds));
    return y;
  }
}

function matrix(x: Var, bounds: Bounds): [number, number, number, number] {
  const rows = bounds.granularity === "row" ? x.shape[0] : x.size / x.shape[x.shape.length - 1];
  return [rows, x.size / rows, GRANULARITY[bounds.granularity], bounds.bits];
}

/** Codes of x; the gradient reaches x and the bounds by straight-through rounding (Eq. 8). */
export function quantize(g: Graph, x: Var, bounds: Bounds): Codes {
  const { lower, upper } = bounds;
  const sides = matrix(x, bounds);
  const y = new Codes(g.bytes(x.size), x.shape, bounds);
  g.run("quantize", x.data, lower.data, upper.data, y.codes, ...sides);
  g.record(y, [x, lower, upper], (gy) => qdqGradient(g, x, bounds, gy));
  return y;
}

/** Something to quantise: a tensor and the bounds of its codes. */
export interface Bounded {
  readonly x: Var;
  readonly bounds: Bounds;
}

/** The same of many weights, with one pair of bounds each or one a row, in one call. */
export function quantizeWeights(g: Graph, weights: readonly Bounded[], bits: number): Codes[] {
  const xs = weights.map(({ x }) => x);
  const lowers = weights.map(({ bounds }) => bounds.lower);
  const uppers = weights.map(({ bounds }) => bounds.upper);
  const inputs = [xs, lowers, uppers];
  const coded = weights.map(
    ({ x, bounds }) => new Codes(g.bytes(x.size), x.shape, bounds, 8, g.floats(x.size)),
  );
  const outputs = [coded.map(({ codes }) => codes), coded.map(({ values }) => values!)];
  g.run("quantizeWeights", ...inputs.map((list) => ops.listOf(list)), ...outputs, bits);
  g.recordEach(coded, inputs, (used, gys) => {
    const given = inputs.map((list) => ops.listOf(list, used));
    const gradients = given.map((list) => list.map(({ length }) => g.floats(length)));
    g.run("quantizeWeightsGrad", ...given, gys, ...gradients, bits);
    return gradients;
  });
  return coded;
}

/** The values of codes as a float tensor that further ops can use. */
export function dequantize(g: Graph, codes: Codes): Var {
  return g.record(new Var(codes.dequantise(g), codes.shape), [codes], (gy) => [gy]);
}

/** x snapped to its grid: dequantize(quantize(x)). */
export function qdq(g: Graph, x: Var, bounds: Bounds): Var {
  const { lower, upper } = bounds;
  const y = new Var(g.floats(x.size), x.shape);
  g.run("qdq", x.data, lower.data, upper.data, y.data, ...matrix(x, bounds));
  return g.record(y, [x, lower, upper], (gy) => qdqGradient(g, x, bounds, gy));
}

/**
 * Keeps upper - lower of each at least 1e-6 max(1, |lower|, |upper|), in place, after a step of the
 * bounds.
 */
export function separate(g: Graph, all: Iterable<Bounds>): void {
  const lowers: F32[] = [];
  const uppers: F32[] = [];
  const ranges: F32[] = [];
  for (const { lower, upper, granularity } of all) {
    if (granularity === "column") {
      ranges.push(upper.data);
      continue;
    }
    const joint = lower === upper;
    lowers.push(joint ? lower.data.subarray(0, 1) : lower.data);
    uppers.push(joint ? lower.data.subarray(1, 2) : upper.data);
  }
  g.run("separateBounds", lowers, uppers, ranges);
}

function qdqGradient(g: Graph, x: Var, bounds: Bounds, gy: F32): F32[] {
  const { lower, upper } = bounds;
  const gradients = [g.floats(x.size), g.floats(lower.size), g.floats(upper.size)];
  g.run("qdqGrad", x.data, lower.data, upper.data, gy, ...gradients, ...matrix(x, bounds));
  return gradients;
}

function boundOperands(x: Codes, weight: Codes): F32[] {
  const { bounds: a } = x;
  const { bounds: b } = weight;
  return [a.lower.data, a.upper.data, b.lower.data, b.upper.data];
}

function widths(x: Codes, weight: Codes): number[] {
  const granularities = [GRANULARITY[x.bounds.granularity], GRANULARITY[weight.bounds.granularity]];
  return [x.bits, weight.bits, ...granularities, weight.storageBits];
}

/** y = x W^T + b by the integer product of codes (Eq. 11); weight codes (out, in). */
export function codedLinear(g: Graph, x: Codes, weight: Codes, bias: Var | null): Var {
  const out = weight.shape[0];
  const cols = weight.size / out;
  const rows = x.size / cols;
  const y = new Var(g.floats(rows * out), [rows, out]);
  g.run(
    "codedLinear",
    x.codes,
    weight.codes,
    ...boundOperands(x, weight),
    bias?.data ?? null,
    y.data,
    rows,
    cols,
    out,
    ...widths(x, weight),
  );
  return g.record(y, [x, weight, bias], (gy) => {
    const gx = x.requiresGrad
      ? ops.linearGradInput(g, gy, weight.dequantise(g), rows, cols, out)
      : null;
    if (!weight.requiresGrad && !bias?.requiresGrad) return [gx, null, null];
    return [gx, ...ops.linearGradWeight(g, gy, x.dequantise(g), bias !== null, rows, cols, out)];
  });
}

/** Depth-wise convolution on codes, with the border constants of zero padding. */
export function codedDepthwiseConv(
  g: Graph,
  x: Codes,
  weight: Codes,
  bias: Var,
  grid: ops.Grid,
): Var {
  const channels = weight.shape[0];
  const sides = [
    grid.batch,
    grid.height,
    grid.width,
    channels,
    weight.shape[weight.shape.length - 1],
  ];
  const y = new Var(g.floats(x.size), x.shape);
  g.run(
    "codedDepthwiseConv",
    x.codes,
    weight.codes,
    ...boundOperands(x, weight),
    bias.data,
    y.data,
    ...sides,
    ...widths(x, weight),
  );
  return g.record(y, [x, weight, bias], (gy) => {
    const gx = x.requiresGrad ? ops.depthwiseGradInput(g, gy, weight.dequantise(g), sides) : null;
    if (!weight.requiresGrad) return [gx, null, null];
    return [gx, ...ops.depthwiseGradWeight(g, gy, x.dequantise(g), sides)];
  });
}
