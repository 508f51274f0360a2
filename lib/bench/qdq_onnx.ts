/**
 * Linear layers and convolutions in ONNX, in float and in the INT8 form that ONNX Runtime's own
 * quantiser writes: QuantizeLinear and DequantizeLinear around each product (uint8 activations with
 * a zero point, int8 weights per output channel, int32 biases), which its optimiser fuses.
 */
import type { OnnxAttribute, OnnxGraph } from "./onnx.ts";

/** Range of a tensor, from calibration. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** A product's weight (out first), its bias, and the shape of the weight. */
export interface Product {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly shape: readonly number[];
}

const ACTIVATION_LEVELS = 255;
const WEIGHT_LEVELS = 127;

/** Scale and zero point of a range that is made to contain 0, as ONNX wants. */
export function activationGrid({ min, max }: Range): { scale: number; zero: number } {
  const [low, high] = [Math.min(min, 0), Math.max(max, 0)];
  const scale = Math.max(high - low, 1e-6) / ACTIVATION_LEVELS;
  return { scale, zero: Math.round(-low / scale) };
}

/** Codes and scales of a weight (out, ...), symmetric about 0, one scale per output. */
export function quantiseWeight({ weight, shape }: Product): {
  codes: Int8Array;
  scales: Float32Array;
} {
  const columns = weight.length / shape[0];
  const codes = new Int8Array(weight.length);
  const scales = new Float32Array(shape[0]);
  for (let row = 0; row < shape[0]; row++) {
    let most = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) {
      most = Math.max(most, Math.abs(weight[i]));
    }
    scales[row] = Math.max(most, 1e-8) / WEIGHT_LEVELS;
    for (let i = row * columns; i < (row + 1) * columns; i++) {
      codes[i] = Math.round(weight[i] / scales[row]);
    }
  }
  return { codes, scales };
}

/** x through QuantizeLinear and DequantizeLinear. */
function throughCodes(g: OnnxGraph, x: string, range: Range): { value: string; scale: number } {
  const { scale, zero } = activationGrid(range);
  const operands = [g.scalar(scale), g.constant(Uint8Array.of(zero), [])];
  const codes = g.node("QuantizeLinear", [x, ...operands]);
  return { value: g.node("DequantizeLinear", [codes, ...operands]), scale };
}

/** Weight and bias as dequantised constants; the bias has the scale of the integer sum. */
function codedConstants(g: OnnxGraph, product: Product, inputScale: number): string[] {
  const { codes, scales } = quantiseWeight(product);
  const zeros = (n: number): Int8Array => new Int8Array(n);
  const weight = g.node(
    "DequantizeLinear",
    [g.constant(codes, product.shape), g.constant(scales), g.constant(zeros(scales.length))],
    { axis: 0 },
  );
  const sums = scales.map((scale) => scale * inputScale);
  const bias = Int32Array.from(product.bias, (value, i) => Math.round(value / sums[i]));
  const biasOperands = [
    g.constant(bias),
    g.constant(sums),
    g.constant(new Int32Array(sums.length)),
  ];
  return [weight, g.node("DequantizeLinear", biasOperands, { axis: 0 })];
}

/** Nodes of the products of a graph: in float where `range` is null, else in INT8. */
function product(
  g: OnnxGraph,
  op: "Gemm" | "Conv",
  x: string,
  operands: Product,
  attributes: Readonly<Record<string, OnnxAttribute>>,
  range: Range | null,
): string {
  if (range === null) {
    const constants = [g.constant(operands.weight, operands.shape), g.constant(operands.bias)];
    return g.node(op, [x, ...constants], attributes);
  }
  const { value, scale } = throughCodes(g, x, range);
  return g.node(op, [value, ...codedConstants(g, operands, scale)], attributes);
}

/** y = x W^T + b for x (rows, in), weight (out, in). */
export function linearNode(
  g: OnnxGraph,
  x: string,
  operands: Product,
  range: Range | null,
): string {
  return product(g, "Gemm", x, operands, { transB: 1 }, range);
}

/** A 3x3 convolution with zero padding of x (1, in, h, w), weight (out, in, 3, 3). */
export function convNode(g: OnnxGraph, x: string, operands: Product, range: Range | null): string {
  return product(g, "Conv", x, operands, { pads: [1, 1, 1, 1] }, range);
}
