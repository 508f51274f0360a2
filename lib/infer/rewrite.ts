/**
 * Rewrites of traced calls before they are encoded: the same values, bit for bit, with less work at
 * run time.
 */
import {
  Graph,
  type OpName,
  type Operand,
  type OperandList,
  type TracedCall,
} from "../autograd.ts";
import { type F32, type I32, native } from "../binding.ts";
import { expected } from "../errors.ts";
import { bytes, type NativeArray } from "../tensor.ts";
import { realArray } from "../traced.ts";
import { roundUp } from "./arena.ts";
import { rowWise } from "./segments.ts";

/** Outputs of packed linear layers are padded to this many (native/core/ops/products.hpp). */
const PACKED_WIDTH = 16;

/** True for an operand that is a tensor. */
export const isArray = (operand: Operand): operand is NativeArray => ArrayBuffer.isView(operand);

/** Runs an op on host arrays at once, with the bits of the backend that the plan is for. */
export type Caller = (op: OpName, ...operands: (Operand | OperandList)[]) => void;

/** The CPU's. */
export const hostCaller: Caller = (op, ...operands) =>
  (native()[op] as (...operands: (Operand | OperandList)[]) => void)(...operands);

/** Calls on weights alone are made here and now; their results are constants of the plan. */
export function foldConstants(
  calls: readonly TracedCall<Operand | OperandList>[],
  input: F32,
  caller: Caller = hostCaller,
): TracedCall[] {
  const varying = new Set<ArrayBufferLike>([input.buffer]);
  const real = new Map<ArrayBufferLike, ArrayBuffer>();
  const known = <T extends Operand>(operand: T): T => {
    const buffer = isArray(operand) ? real.get(operand.buffer) : undefined;
    return buffer && isArray(operand) ? (realArray(operand, buffer) as T) : operand;
  };
  return calls.flatMap(({ op, operands }): TracedCall[] => {
    const arrays = (operands.flat() as Operand[]).filter(isArray);
    const traced = arrays.filter((array) => Graph.isTraced(array.buffer));
    if (arrays.some(({ buffer }) => varying.has(buffer))) {
      if (operands.some((o) => Array.isArray(o)))
        throw expected("ERR_INTERNAL", `lists of ${op} in a plan`, "constants", "values");
      for (const array of traced) if (!real.has(array.buffer)) varying.add(array.buffer);
      return [{ op, operands: (operands as Operand[]).map(known) }];
    }
    for (const { buffer } of traced) {
      if (!real.has(buffer)) real.set(buffer, new ArrayBuffer(buffer.byteLength)); // it writes them
    }
    caller(op, ...operands.map((o) => (Array.isArray(o) ? o.map(known) : known(o as Operand))));
    return [];
  });
}

/** Linear layers whose weights stay, with the weights in the backend's own layout. */
export function packWeights(
  calls: readonly TracedCall[],
  caller: Caller = hostCaller,
): TracedCall[] {
  const stays = (operand: Operand): boolean =>
    operand === null || (isArray(operand) && !Graph.isTraced(operand.buffer));
  return calls.map((call): TracedCall => {
    const o = call.operands;
    if (call.op === "linear" && o.slice(1, 3).every(stays)) {
      const [rows, cols, out] = o.slice(4) as number[];
      const packed = bytes(4 * (cols + 1) * roundUp(out, PACKED_WIDTH));
      caller("packLinear", o[1], o[2], packed, cols, out);
      return { op: "packedLinear", operands: [o[0], packed, o[3], rows, cols, out] };
    }
    if (call.op === "codedLinear" && o.slice(1, 7).every(stays)) {
      const [rows, cols, out, xBits, weightBits, ...rest] = o.slice(8) as number[];
      const packed = bytes((2 * roundUp(cols, 4) + 12) * roundUp(out, PACKED_WIDTH));
      const sizes = [cols, out, xBits, weightBits, ...rest];
      caller("packCodedLinear", ...o.slice(1, 7), packed, ...sizes);
      const operands = [o[0], packed, o[7], rows, cols, out, xBits, weightBits];
      return { op: "packedCodedLinear", operands };
    }
    return call;
  });
}

/** A depth-wise convolution whose result only gates its own input gives the product itself. */
export function gateInConvolution(calls: readonly TracedCall[]): TracedCall[] {
  const readers = new Map<ArrayBufferLike, number>();
  for (const call of calls) {
    const buffers = new Set(call.operands.filter(isArray).map((operand) => operand.buffer));
    for (const buffer of buffers) readers.set(buffer, (readers.get(buffer) ?? 0) + 1);
  }
  const products = calls.filter(({ op }) => op === "sigmoidGate");
  const gone = new Set<TracedCall>();
  const result = calls.map((call): TracedCall => {
    if (call.op !== "depthwiseConv") return call;
    const [x, , , gate] = call.operands;
    const product = products.find(({ operands: o }) => same(o[0], x) && same(o[1], gate));
    if (!product || readers.get((gate as F32).buffer) !== 2) return call;
    gone.add(product);
    return { op: "gatedDepthwiseConv", operands: call.operands.with(3, product.operands[2]) };
  });
  return result.filter((_, i) => !gone.has(calls[i]));
}

/** Calls between two readers of a value, from which on making it again beats keeping it. */
const LONG = 50;

/**
 * What the first calls make of the image, needed once more at the end, is made again there: a
 * convolution of three channels costs less than a value of the image's size held all along.
 */
export function recomputeShallow(calls: readonly TracedCall[], input: F32): TracedCall[] {
  const shallow = new Map<ArrayBufferLike, TracedCall>(); // by what the call makes
  for (const call of calls.slice(0, SHALLOW_OPS.length)) {
    const made = call.operands[call.op === "padImage" ? 2 : 3];
    const from = (call.operands[0] as F32).buffer;
    if (!SHALLOW_OPS.includes(call.op) || !isArray(made)) break;
    if (from !== input.buffer && !shallow.has(from)) break;
    shallow.set(made.buffer, call);
  }
  const lastRead = new Map<ArrayBufferLike, number>();
  return calls.flatMap((call, at): TracedCall[] => {
    const again: TracedCall[] = [];
    const renamed = new Map<ArrayBufferLike, F32>();
    const remake = (made: F32): F32 => {
      const maker = shallow.get(made.buffer)!;
      const copy = new Graph("tracing").floats(made.length);
      const operands = maker.operands.map((o, i) =>
        isArray(o) && i === 0 && shallow.has(o.buffer)
          ? remake(o as F32)
          : same(o, made)
            ? copy
            : o,
      );
      again.push({ op: maker.op, operands });
      return copy;
    };
    for (const operand of call.operands.filter(isArray)) {
      const { buffer } = operand;
      if (!shallow.has(buffer)) continue;
      if (at - (lastRead.get(buffer) ?? at) > LONG) renamed.set(buffer, remake(operand as F32));
      lastRead.set(buffer, at);
    }
    if (renamed.size === 0) return [call];
    const operands = call.operands.map((o) => (isArray(o) && renamed.get(o.buffer)) || o);
    return [...again, { op: call.op, operands }];
  });
}

/** The calls between the image and the shallow features, in order. */
const SHALLOW_OPS: readonly string[] = ["padImage", "conv2d"];

/**
 * Rows that are scattered back into raster order behind a scan are gathered right behind it
 * instead: the calls on each row in between then join those that follow, and one value of the
 * image's size less is written and read.
 */
export function gatherBehindScan(calls: readonly TracedCall[]): TracedCall[] {
  let done = [...calls];
  for (let at = 0; at < done.length; at++) {
    if (done[at].op === "scatterRows") done = unscattered(done, at) ?? done;
  }
  return done;
}

/** `calls` without the scatterRows at `end`, or null where that cannot be. */
function unscattered(calls: readonly TracedCall[], end: number): TracedCall[] | null {
  const [x, order, scattered, rows] = calls[end].operands as [F32, I32, F32, number];
  const sort = calls.findLast(
    (c, i) => i < end && c.op === "sortTokens" && same(c.operands[1], order),
  );
  const scan = calls.findLastIndex((c, i) => i < end && c.op === "selectiveScan");
  if (!sort || scan < 0) return null;
  const y = calls[scan].operands[8] as F32;
  const sorted = new Set<ArrayBufferLike>([y.buffer]);
  const isSorted = (operand: Operand): boolean => isArray(operand) && sorted.has(operand.buffer);
  for (let i = scan + 1; i < calls.length; i++) {
    const call = calls[i];
    if (i === end || !call.operands.some(isSorted)) continue;
    const kind = rowWise(call);
    if (i > end || !kind || kind.writesAll !== undefined) return null;
    const inputs = kind.tiled.filter((k) => !kind.outputs.includes(k));
    if (!inputs.every((k) => call.operands[k] === null || isSorted(call.operands[k]))) return null;
    for (const k of kind.outputs) sorted.add((call.operands[k] as NativeArray).buffer);
  }
  if (!isSorted(x)) return null;
  const fresh = new Graph("tracing");
  const known = sort.operands[2] as I32 | null;
  const inverse = known ?? fresh.ints(order.length);
  const raster = fresh.floats(y.length);
  const gather = [y, inverse, raster, rows, y.length / rows] as const;
  const renamed = (operand: Operand): Operand =>
    same(operand, y) ? raster : same(operand, scattered) ? x : operand;
  return calls.flatMap((call, i): TracedCall[] => {
    const { op, operands } = call;
    if (call === sort) return [{ op, operands: operands.with(2, inverse) }];
    if (i === scan) return [call, { op: "gatherRows", operands: gather }];
    if (i === end) return [];
    const changes = i > scan && operands.some((o) => renamed(o) !== o);
    return [changes ? { op, operands: operands.map(renamed) } : call];
  });
}

const same = (a: Operand, b: Operand): boolean =>
  isArray(a) && isArray(b) && a.buffer === b.buffer && a.byteOffset === b.byteOffset;
