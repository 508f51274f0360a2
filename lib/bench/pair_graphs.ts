/**
 * Pairs of linear layers as they follow each other in the networks (48-144-48 and so on), chained
 * so that the cost of one pair inside a graph can be told from what a call costs: as an ONNX graph
 * for the peer, as a packed plan for us.
 */
import { Graph, Var } from "../autograd.ts";
import { type F32, native, type PlanHandle } from "../binding.ts";
import { encode } from "../infer/encode.ts";
import { packCodes } from "../quant/bitpack.ts";
import { type Bounds, Codes, codedLinear, quantize } from "../quant/codes.ts";
import { floats } from "../tensor.ts";
import { emptyFloats, randomCodes, randomFloats } from "./data.ts";
import { OnnxGraph } from "./onnx.ts";
import { linearNode, type Product, type Range } from "./qdq_onnx.ts";

/** Tokens, and the widths between which a pair goes there and back. */
export interface PairShape {
  readonly rows: number;
  readonly narrow: number;
  readonly wide: number;
}

/** Range of activations that both sides quantise: about four deviations of what flows here. */
const RANGE: Range = { min: -4, max: 4 };

/** Multiply-accumulates of one pair. */
export function pairMacs({ rows, narrow, wide }: PairShape): number {
  return 2 * rows * narrow * wide;
}

function layer(inputs: number, outputs: number, seed: number): Product {
  return {
    weight: randomFloats(inputs * outputs, seed, inputs ** -0.5),
    bias: randomFloats(outputs, seed + 1, 0.1),
    shape: [outputs, inputs],
  };
}

/** `pairs` pairs as an ONNX graph x (rows, narrow) -> y (rows, narrow). */
export function pairModel(shape: PairShape, pairs: number, int8: boolean): Uint8Array {
  const { rows, narrow, wide } = shape;
  const g = new OnnxGraph();
  let x = g.input("x", [rows, narrow]);
  for (let i = 0; i < pairs; i++) {
    x = linearNode(g, x, layer(narrow, wide, 4 * i), int8 ? RANGE : null);
    x = linearNode(g, x, layer(wide, narrow, 4 * i + 2), int8 ? RANGE : null);
  }
  g.output("y", x, [rows, narrow]);
  return g.bytes();
}

/** A frozen list of ops that can be run again and again. */
export interface ChainPlan {
  run(): Promise<unknown>;
}

/** Bounds as the recipe `best` has them: an offset per input channel, a range per output. */
function inputBounds(columns: number, bits: number): Bounds {
  const lower = floats(columns).fill(RANGE.min);
  const upper = floats(1).fill(RANGE.max - RANGE.min);
  return {
    lower: new Var(lower, [columns]),
    upper: new Var(upper, [1]),
    granularity: "column",
    bits,
  };
}

function weightBounds(rows: number, columns: number, bits: number): Bounds {
  const end = 1.7 * columns ** -0.5;
  const lower = floats(rows).fill(-end);
  const upper = floats(rows).fill(end);
  return { lower: new Var(lower, [rows]), upper: new Var(upper, [rows]), granularity: "row", bits };
}

/** `pairs` pairs on `bits`-bit codes as a packed plan, quantising at every layer's door. */
export function pairPlan(shape: PairShape, pairs: number, bits: number): ChainPlan {
  const { rows, narrow, wide } = shape;
  const g = new Graph("tracing");
  const input = new Var(emptyFloats(rows * narrow), [rows, narrow]);
  const linear = (x: Var, outputs: number, seed: number): Var => {
    const inputs = x.shape[1];
    const packed = packCodes(randomCodes(outputs * inputs, bits, seed), outputs, inputs, bits);
    const bounds = weightBounds(outputs, inputs, bits);
    const weight = new Codes(packed, [outputs, inputs], bounds, bits);
    const bias = new Var(randomFloats(outputs, seed, 0.1), [outputs]);
    return codedLinear(g, quantize(g, x, inputBounds(inputs, bits)), weight, bias);
  };
  let x = input;
  for (let i = 0; i < pairs; i++) x = linear(linear(x, wide, 2 * i), narrow, 2 * i + 1);
  return frozen(g, input.data, x.data, rows * narrow);
}

function frozen(g: Graph, input: F32, traced: F32, size: number): ChainPlan {
  const { code, constants, arenaBytes } = encode(g.calls, input, traced, true);
  const handle: PlanHandle = native().createPlan(
    Float64Array.from(code),
    constants,
    arenaBytes,
    size,
    size,
  );
  const values = randomFloats(size, 99);
  const output = emptyFloats(size);
  return { run: () => native().runPlan(handle, values, output, null, null, 0, null) };
}
