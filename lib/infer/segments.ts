/**
 * Groups the calls of a frozen network into segments. Most ops work on each token by itself; a run
 * of them needs no barrier between its calls: a thread takes a tile of rows through all of them
 * while the tile's values are in its cache. Calls that look at other tokens (attention,
 * convolutions, sorting, the scan) stand alone, but for those that begin a segment on a GPU.
 */
import type { OpName, TracedCall } from "../autograd.ts";
import type { NativeArray } from "../tensor.ts";

/** Where a row-wise op keeps its rows. Numbers are positions in the op's operand list. */
export interface RowWise {
  /** Operands with one row per token. */
  readonly tiled: readonly number[];
  /** Position of the number of rows, or of elements; -1 where `rows` tells it. */
  readonly count: number;
  /** Positions of numbers of which rows are the product. */
  readonly rows?: readonly number[];
  /** True where `count` counts elements: any number of rows divides them. */
  readonly elements?: boolean;
  /** Position of the number of the first row, where the op wants to know it. */
  readonly first?: number;
  /** Position of an operand that is written beyond the tile's own rows. */
  readonly writesAll?: number;
  readonly outputs: readonly number[];
}

const elementwise = (operands: number): RowWise => ({
  tiled: Array.from({ length: operands }, (_, i) => i),
  count: operands,
  elements: true,
  outputs: [operands - 1],
});

const quantiser: RowWise = { tiled: [0, 3], count: 4, outputs: [3] };

const ROW_WISE: Partial<Record<OpName, RowWise>> = {
  linear: { tiled: [0, 3], count: 4, outputs: [3] },
  packedLinear: { tiled: [0, 2], count: 3, outputs: [2] },
  packedCodedLinear: { tiled: [0, 2], count: 3, outputs: [2] },
  fusedCodedLinear: { tiled: [0, 2, 4, 5, 10, 13], count: 14, outputs: [5, 10, 13] },
  layerNorm: { tiled: [0, 3], count: 4, outputs: [3] },
  gelu: elementwise(2),
  sigmoidGate: elementwise(3),
  multiply: elementwise(3),
  add: elementwise(3),
  scale: elementwise(2),
  scaleAdd: { tiled: [0, 2, 3], count: 4, outputs: [3] },
  sliceColumns: { tiled: [0, 1], count: 2, outputs: [1] },
  addPrompt: { tiled: [0, 2, 3], count: 4, outputs: [3] },
  gatherRows: { tiled: [1, 2], count: 3, outputs: [2] },
  scatterRows: { tiled: [0, 1], count: 3, writesAll: 2, outputs: [2] },
  route: { tiled: [0, 1], count: 3, first: 9, outputs: [1] }, // of one image: batch is 1 in plans
  quantize: quantiser,
  dequantize: quantiser,
  qdq: quantiser,
};

/** Granularity of bounds that belong to rows: such a quantiser's bounds are rows as well. */
const ROW_BOUNDS = 1;

/** Calls first ... last; `rows` is 0 for a call that stands alone. */
export interface Segment {
  readonly first: number;
  readonly last: number;
  readonly rows: number;
}

/** The row-wise description of a call, or undefined where the call stands alone. */
export function rowWise(call: TracedCall): RowWise | undefined {
  const found = ROW_WISE[call.op];
  return found === quantiser && call.operands[6] === ROW_BOUNDS ? undefined : found;
}

/** A segment under construction. */
class Run {
  readonly first: number;
  rows = 0;
  closed = false;
  readonly #elements: number[] = [];
  readonly #written = new Map<ArrayBufferLike, NativeArray>();
  readonly #readWhole = new Set<ArrayBufferLike>();

  constructor(first: number) {
    this.first = first;
  }

  /** Adds the call if a tile of rows can run through it after the others. */
  accepts(call: TracedCall, kind: RowWise): boolean {
    const counts = kind.rows ?? [kind.count];
    const count = counts.reduce((product, i) => product * (call.operands[i] as number), 1);
    if (this.closed || count === 0) return false;
    const rows = kind.elements ? this.rows : count;
    const elements = kind.elements ? [...this.#elements, count] : this.#elements;
    if (this.rows !== 0 && rows !== this.rows) return false;
    if (rows !== 0 && elements.some((n) => n % rows !== 0)) return false;
    const arrays = call.operands.map((o) => (ArrayBuffer.isView(o) ? o : null));
    const outputs = kind.outputs.map((i) => arrays[i]).filter((array) => array !== null);
    for (const [i, array] of arrays.entries()) {
      const before = array && this.#written.get(array.buffer);
      if (!before) continue;
      const same = before.byteOffset === array.byteOffset && before.length === array.length;
      if (!kind.tiled.includes(i) || !same) return false;
    }
    if (outputs.some((o) => o.byteOffset !== 0 || this.#readWhole.has(o.buffer))) return false;
    if (kind.elements) this.#elements.push(count);
    this.rows = rows;
    for (const output of outputs) this.#written.set(output.buffer, output);
    arrays.forEach((array, i) => {
      if (array && !kind.outputs.includes(i) && !kind.tiled.includes(i))
        this.#readWhole.add(array.buffer);
    });
    if (kind.writesAll !== undefined) this.closed = true;
    return true;
  }
}

/** Tells how a call keeps its rows where it may be part of a segment. */
export type Joins = (call: TracedCall) => RowWise | undefined;

/** What one kernel takes through a segment's rows on a GPU (native/cuda/segment.cu). */
const ROWS_ON_DEVICE: ReadonlySet<OpName> = new Set<OpName>([
  ...["fusedCodedLinear", "layerNorm", "quantize", "dequantize", "qdq", "gatherRows"],
  ...["sliceColumns", "addPrompt", "route", "gelu", "sigmoidGate", "multiply", "add", "scale"],
  "scaleAdd",
] as const);

/**
 * What reads rows of others too, and so has to come from kernels before: it may begin a segment on a
 * GPU, or join one that does not make what it reads. Behind attention the rows are those of a window.
 */
const READERS_ON_DEVICE: Partial<Record<OpName, RowWise>> = {
  codedWindowAttention: { tiled: [6, 9], count: -1, rows: [10, 11, 12], outputs: [6, 9] },
  fusedCodedDepthwiseConv: { tiled: [7, 10], count: -1, rows: [11, 12, 13], outputs: [10] },
};

/** How calls keep their rows that may be part of a segment on a GPU. */
export const joinsOnDevice: Joins = (call) =>
  READERS_ON_DEVICE[call.op] ?? (ROWS_ON_DEVICE.has(call.op) ? rowWise(call) : undefined);

/** Splits `calls` into segments, in order, each as long as it can be. */
export function segmentsOf(calls: readonly TracedCall[], joins: Joins = rowWise): Segment[] {
  const segments: Segment[] = [];
  let run: Run | null = null;
  const close = (end: number): void => {
    if (run) segments.push({ first: run.first, last: end - 1, rows: run.rows });
    run = null;
  };
  calls.forEach((call, at) => {
    const kind = joins(call);
    if (run && kind && (run as Run).accepts(call, kind)) return;
    close(at);
    const next = new Run(at);
    if (kind && next.accepts(call, kind)) run = next;
    else segments.push({ first: at, last: at, rows: 0 });
  });
  close(calls.length);
  // Calls alone, and calls on elements alone, of which nobody knows the rows.
  return segments.flatMap((s): Segment[] =>
    s.rows === 0 || s.first === s.last
      ? Array.from({ length: s.last - s.first + 1 }, (_, i) => ({
          first: s.first + i,
          last: s.first + i,
          rows: 0,
        }))
      : [s],
  );
}
