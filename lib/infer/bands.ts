/**
 * A convolution whose result is added to a value that was there before it needs three values of the
 * image's size at once. In bands of rows it needs two and a band: each band is convolved with a row
 * of its neighbours above and below, and added in place. The same bits: rows do not depend on each
 * other, and those at a band's edges that lack a neighbour are left out.
 */
import { Graph, type Operand, type TracedCall } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { isArray } from "./rewrite.ts";

/** Bands of an image: four leave little of the third value, and still keep threads busy. */
const BANDS = 4;

/** A convolution and the sum that follows it. */
interface Sum {
  readonly convolution: TracedCall;
  readonly add: TracedCall;
  /** What is added, and written over. */
  readonly other: F32;
}

/** Positions of the calls that touch a value. */
const touching = (calls: readonly TracedCall[], value: F32): number[] =>
  calls.flatMap(({ operands }, at) =>
    operands.some((o) => isArray(o) && o.buffer === value.buffer) ? [at] : [],
  );

/** The sum behind the convolution at `at` that may be made in bands, or null. */
function sumBehind(calls: readonly TracedCall[], at: number): Sum | null {
  const convolution = calls[at];
  const add = calls[at + 1];
  const batch = convolution.operands[4];
  if (convolution.op !== "conv2d" || add?.op !== "add" || batch !== 1) return null;
  const made = convolution.operands[3] as F32;
  const [a, b] = add.operands as [F32, F32];
  const other = a.buffer === made.buffer ? b : a;
  const others = touching(calls, other);
  const isPlain = Graph.isTraced(other.buffer) && others[0] < at && others.at(-1) === at + 1;
  if (!isPlain || touching(calls, made).length !== 2) return null;
  return { convolution, add, other };
}

/** `calls` with the convolution at `at` and its sum in bands; as they are where that cannot be. */
export function inBands(calls: readonly TracedCall[], at: number): readonly TracedCall[] {
  const sum = sumBehind(calls, at);
  if (!sum) return calls;
  const [x, weight, bias, , batch, height, width, cin, out, kernel] = sum.convolution
    .operands as readonly [F32, F32, F32, F32, ...number[]];
  const halo = (kernel - 1) / 2;
  const rows = Math.ceil(height / BANDS);
  const { other } = sum;
  const banded: TracedCall[] = [];
  for (let first = 0; first < height; first += rows) {
    const end = Math.min(height, first + rows);
    const [from, to] = [Math.max(0, first - halo), Math.min(height, end + halo)];
    const band = new Graph("tracing").floats((to - from) * width * out);
    const [begin, size] = [(first - from) * width * out, (end - first) * width * out];
    const sums = other.subarray(first * width * out, end * width * out);
    const source = x.subarray(from * width * cin, to * width * cin);
    const sides = [batch, to - from, width, cin, out, kernel];
    banded.push(
      { op: "conv2d", operands: [source, weight, bias, band, ...sides] },
      { op: "add", operands: [band.subarray(begin, begin + size), sums, sums, size] },
    );
  }
  const result = sum.add.operands[2] as F32;
  const renamed = (operand: Operand): Operand => {
    if (!isArray(operand) || operand.buffer !== result.buffer) return operand;
    const begin = operand.byteOffset / 4;
    return other.subarray(begin, begin + operand.length);
  };
  const rest = calls
    .slice(at + 2)
    .map(({ op, operands }): TracedCall => ({ op, operands: operands.map(renamed) }));
  return [...calls.slice(0, at), ...banded, ...rest];
}
