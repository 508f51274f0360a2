/**
 * Joins a coded linear layer with the calls that follow it on each token (native op
 * fusedCodedLinear), so that a token goes from codes to codes without leaving the first cache. The
 * same bits as the calls one after the other.
 */
import type { Operand, TracedCall } from "../autograd.ts";
import type { NativeArray } from "../tensor.ts";
import { isArray } from "./rewrite.ts";

/** Positions of the result and of its flag for stores past the caches among the operands. */
export const STREAMED = { op: "fusedCodedLinear", y: 5, flag: 26 } as const;

/** Outputs of a fused layer, at most (kMostFused of native/core/ops/fused.hpp). */
const MOST_OUTPUTS = 256;

/** Granularities whose bounds do not belong to rows. */
const SHARED_BOUNDS: readonly Operand[] = [0, 2];

/** What a chain of calls does to the result of its product. */
interface Chain {
  /** Positions of the calls that it replaces, the product's first. */
  readonly parts: number[];
  gelu: boolean;
  factor: number;
  added: Operand;
  scale: Operand;
  residual: Operand;
  /** The tensor that holds the chain's value so far. */
  value: NativeArray;
  /** The value, or its first columns, where something outside the chain reads it. */
  kept: NativeArray | null;
  keptColumns: number;
  first: number;
  norm: readonly [Operand, Operand] | null;
  /** lower, upper, codes, bits, granularity. */
  coders: (readonly [Operand, Operand, NativeArray, number, number])[];
}

/** Positions of the calls that touch each buffer, in order. */
function touchesOf(calls: readonly TracedCall[]): Map<ArrayBufferLike, number[]> {
  const touches = new Map<ArrayBufferLike, number[]>();
  calls.forEach((call, at) => {
    for (const buffer of new Set(call.operands.filter(isArray).map((o) => o.buffer))) {
      if (!touches.has(buffer)) touches.set(buffer, []);
      touches.get(buffer)!.push(at);
    }
  });
  return touches;
}

/** Collects the chain behind the coded linear layer at `at`; null where nothing follows that fits. */
function chainAt(
  calls: readonly TracedCall[],
  touches: Map<ArrayBufferLike, number[]>,
  at: number,
  gone: ReadonlySet<number>,
): Chain | null {
  const product = calls[at];
  const out = product.operands[5] as number;
  if (out > MOST_OUTPUTS) return null;
  const chain: Chain = {
    parts: [at],
    gelu: false,
    factor: 1,
    added: null,
    scale: null,
    residual: null,
    value: product.operands[2] as NativeArray,
    kept: null,
    keptColumns: 0,
    first: 0,
    norm: null,
    coders: [],
  };
  const readers = (array: NativeArray): number[] =>
    touches.get(array.buffer)!.filter((i) => !chain.parts.includes(i));
  const is = (operand: Operand): boolean =>
    isArray(operand) && operand.buffer === chain.value.buffer;
  const join = (position: number, value: NativeArray): void => {
    chain.parts.push(position);
    chain.value = value;
  };
  // On each value, while nobody else reads what lies between.
  for (let next = readers(chain.value); next.length === 1; next = readers(chain.value)) {
    if (gone.has(next[0])) break; // a sum of two layers belongs to one of them
    const { op, operands: o } = calls[next[0]];
    const plain = !chain.added && !chain.residual;
    if (op === "gelu" && plain && !chain.gelu && chain.factor === 1) {
      chain.gelu = true;
      join(next[0], o[1] as NativeArray);
    } else if (op === "scale" && plain && chain.factor === 1) {
      chain.factor = o[3] as number;
      join(next[0], o[1] as NativeArray);
    } else if (op === "add" && plain && is(o[0]) !== is(o[1])) {
      chain.added = is(o[0]) ? o[1] : o[0];
      join(next[0], o[2] as NativeArray);
    } else if (op === "scaleAdd" && !chain.residual && o[5] === out && is(o[2]) && !is(o[0])) {
      [chain.residual, chain.scale] = o;
      join(next[0], o[3] as NativeArray);
    } else break;
  }
  quantiseTail(calls, chain, readers, gone);
  const others = readers(chain.kept ?? chain.value);
  if (!chain.kept && (others.length > 0 || chain.coders.length === 0)) {
    chain.kept = chain.value;
    chain.keptColumns = out;
  }
  return chain;
}

/** Adds slice, norm and quantisers to a chain whose values are complete, where they follow. */
function quantiseTail(
  calls: readonly TracedCall[],
  chain: Chain,
  readers: (array: NativeArray) => number[],
  gone: ReadonlySet<number>,
): void {
  const out = calls[chain.parts[0]].operands[5] as number;
  const before = { ...chain, parts: [...chain.parts] };
  let value = chain.value;
  const parts: number[] = [];
  const rest = (array: NativeArray): number[] => readers(array).filter((i) => !parts.includes(i));
  // Two slices, the first columns and the others, of which the others go on.
  const slices = rest(value);
  const sliced = slices.map((i) => calls[i]);
  const head = sliced.find((c) => c.operands[4] === 0);
  const tail = sliced.find((c) => c.operands[4] !== 0);
  if (
    sliced.length === 2 &&
    sliced.every((c) => c.op === "sliceColumns") &&
    head &&
    tail &&
    (head.operands[5] as number) === (tail.operands[4] as number) &&
    (tail.operands[4] as number) + (tail.operands[5] as number) === out
  ) {
    parts.push(...slices);
    chain.first = tail.operands[4] as number;
    chain.kept = head.operands[1] as NativeArray;
    chain.keptColumns = chain.first;
    value = tail.operands[1] as NativeArray;
  }
  const norms = rest(value).filter((i) => calls[i].op === "layerNorm");
  if (norms.length === 1 && (chain.first === 0 || rest(value).length === 1)) {
    const [, weight, bias, y] = calls[norms[0]].operands;
    const coders = rest(y as NativeArray).filter((i) => i !== norms[0]);
    if (coders.every((i) => calls[i].op === "quantize")) {
      chain.norm = [weight, bias];
      parts.push(norms[0]);
      value = y as NativeArray;
    }
  }
  const coders = rest(value).filter((i) => isShared(calls[i]));
  const all = coders.length === rest(value).length || (!chain.norm && chain.first === 0);
  const free = [...parts, ...coders].every((i) => !gone.has(i));
  // Norm and quantisers see the same rows.
  const aligned = [...norms.filter((i) => parts.includes(i)), ...coders].every(
    (i) => calls[i].operands[5] === out - chain.first,
  );
  if (coders.length < 1 || coders.length > 2 || !all || !free || !aligned) {
    Object.assign(chain, before);
    return;
  }
  for (const i of coders) {
    const [, lower, upper, codes, , , granularity, bits] = calls[i].operands;
    chain.coders.push([lower, upper, codes as NativeArray, bits as number, granularity as number]);
  }
  chain.parts.push(...parts, ...coders);
}

/** A quantiser whose bounds all rows share. */
function isShared(call: TracedCall): boolean {
  return call.op === "quantize" && SHARED_BOUNDS.includes(call.operands[6]);
}

/** Position of the last call outside the chain that makes something it reads, or of its product. */
function earliest(touches: Map<ArrayBufferLike, number[]>, chain: Chain): number {
  const makers = [chain.added, chain.residual]
    .filter(isArray)
    .flatMap((array) => touches.get(array.buffer)![0]); // a value is made once, then read
  return Math.max(chain.parts[0], ...makers);
}

/** `calls` with each attention on codes joined with the quantiser of its result, where that is all. */
export function fuseCodedAttentions(calls: readonly TracedCall[]): TracedCall[] {
  const touches = touchesOf(calls);
  const gone = new Set<TracedCall>();
  const fused = calls.map((call): TracedCall => {
    const y = call.op === "codedWindowAttention" ? call.operands[6] : null;
    const readers = isArray(y) ? touches.get(y.buffer)!.map((i) => calls[i]) : [];
    const coder = readers.find(isShared);
    const columns = (call.operands[13] as number) * (call.operands[14] as number);
    if (readers.length !== 2 || coder?.operands[5] !== columns) return call;
    gone.add(coder);
    const [, lower, upper, codes, , , granularity, bits] = coder.operands;
    const { operands: o } = call;
    return {
      op: call.op,
      operands: [
        ...o.slice(0, 6),
        null,
        lower,
        upper,
        codes,
        ...o.slice(10, -2),
        bits,
        granularity,
      ],
    };
  });
  return fused.filter((_, i) => !gone.has(calls[i]));
}

/** Coded depth-wise convolutions joined with a product and its quantiser, where that is all. */
export function fuseCodedConvolutions(calls: readonly TracedCall[]): TracedCall[] {
  const touches = touchesOf(calls);
  const gone = new Set<TracedCall>();
  /** The one call that reads what `maker` makes at its operand `at`. */
  const onlyReader = (maker: TracedCall, at: number): TracedCall | null => {
    const made = maker.operands[at];
    const touching = isArray(made) ? touches.get(made.buffer)! : [];
    return touching.length === 2 ? calls[touching[1]] : null;
  };
  const fused = calls.map((call): TracedCall => {
    if (call.op !== "codedDepthwiseConv") return call;
    const product = onlyReader(call, 7);
    const coder = product?.op === "multiply" ? onlyReader(product, 2) : null;
    const { operands: o } = call;
    if (!product || !coder || !isShared(coder) || coder.operands[5] !== o[11]) return call;
    const factor = product.operands.slice(0, 2).find((side) => side !== o[7]);
    // The other factor must be there when the convolution runs.
    const made = isArray(factor ?? null) ? touches.get((factor as NativeArray).buffer)![0] : -1;
    if (made < 0 || made > calls.indexOf(call)) return call;
    const [, lower, upper, codes, , , granularity, bits] = coder.operands;
    gone.add(product).add(coder);
    return {
      op: "fusedCodedDepthwiseConv",
      operands: [...o.slice(0, 7), factor!, lower, upper, codes, ...o.slice(8), bits, granularity],
    };
  });
  return fused.filter((_, i) => !gone.has(calls[i]));
}

/** `calls` with each coded linear layer joined with what follows it on each token. */
export function fuseCodedLinears(calls: readonly TracedCall[]): TracedCall[] {
  const touches = touchesOf(calls);
  const fused = new Map<number, TracedCall[]>(); // behind the call at this position
  const gone = new Set<number>();
  calls.forEach((call, at) => {
    if (call.op !== "packedCodedLinear" || gone.has(at)) return;
    const chain = chainAt(calls, touches, at, gone);
    if (!chain) return;
    for (const i of chain.parts) gone.add(i);
    // Where another waits at this place, it waits for what this one makes.
    const place = earliest(touches, chain);
    const there = fused.get(place) ?? [];
    const joined = fusedCall(call, chain);
    fused.set(place, place === at ? [joined, ...there] : [...there, joined]);
  });
  return calls.flatMap((call, at) => [...(gone.has(at) ? [] : [call]), ...(fused.get(at) ?? [])]);
}

function fusedCall(product: TracedCall, chain: Chain): TracedCall {
  const [x, packed, , ...sizes] = product.operands;
  const none = [null, null, null, 1, 0] as const;
  const [lower, upper, codes, bits, granularity] = chain.coders[0] ?? none;
  const [moreLower, moreUpper, moreCodes, moreBits, moreGranularity] = chain.coders[1] ?? none;
  const { added, scale, residual, kept, norm } = chain;
  return {
    op: "fusedCodedLinear",
    operands: [
      ...[x, packed, added, scale, residual, kept, norm?.[0] ?? null, norm?.[1] ?? null],
      ...[lower, upper, codes, moreLower, moreUpper, moreCodes, ...sizes],
      ...[chain.gelu ? 1 : 0, chain.keptColumns, chain.first],
      ...[bits, granularity, moreBits, moreGranularity, 0, chain.factor],
    ],
  };
}
