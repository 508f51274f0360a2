/**
 * Reverse-mode differentiation over native ops. A Graph runs ops and, while recording, remembers
 * for each one how to turn the gradient of its output into gradients of its inputs (lib/ops.ts has
 * one entry per op). Three modes share one model code:
 *   recording  training: every buffer lives until dispose();
 *   running    inference: scope() frees what a block of the network leaves behind;
 *   tracing    nothing runs: op calls are collected for a native plan (lib/infer/plan.ts).
 */
import { type F32, type I32, native, type NativeBinding, type U8 } from "./binding.ts";
import { Memory, type NativeArray, type OpCall } from "./tensor.ts";
import { TracedBuffer, tracedBytes, tracedFloats, tracedInts } from "./traced.ts";

/** A value in a graph: floats (or codes, see ops.ts) with a gradient once backward() has run. */
export class Var {
  readonly data: F32;
  readonly shape: readonly number[];
  /** True for trainable leaves and for everything computed from one while recording. */
  requiresGrad: boolean;
  grad: F32 | null = null;

  constructor(data: F32, shape: readonly number[], requiresGrad = false) {
    this.data = data;
    this.shape = shape;
    this.requiresGrad = requiresGrad;
  }

  /** Number of values of the float tensor this stands for. */
  get size(): number {
    return this.shape.reduce((product, side) => product * side, 1);
  }
}

/** Names of the native ops. */
export type OpName = Exclude<
  keyof NativeBinding,
  | "allocate"
  | "backends"
  | "backendName"
  | "useBackend"
  | "threads"
  | "peakBytes"
  | "openDevice"
  | "closeDevice"
  | `device${string}`
  | "constantBytes"
  | "adjustMemory"
  | "openCuda"
  | "opNames"
  | "createPlan"
  | "releasePlan"
  | "runPlan"
  | "createDevicePlan"
  | "releaseDevicePlan"
  | "runDevicePlan"
  | "runDevicePlanOn"
>;

/** One operand of an op call. */
export type Operand = NativeArray | number | null;

/** Tensors for an op over many of them, or numbers, one for each: no call of a plan has them. */
export type OperandList = readonly NativeArray[] | Float64Array;

/** One collected call of a tracing graph, whose lists hold constants (infer/rewrite.ts). */
export interface TracedCall<O = Operand> {
  readonly op: OpName;
  readonly operands: readonly O[];
}

type Gradients = readonly (F32 | null)[];

interface Entry {
  readonly outputs: readonly Var[];
  readonly inputs: readonly (Var | null)[];
  readonly backward: (gradients: Gradients) => Gradients;
}

export type GraphMode = "recording" | "running" | "tracing";

export class Graph {
  readonly memory: Memory;
  readonly mode: GraphMode;
  readonly calls: TracedCall<Operand | OperandList>[] = [];
  /** Recompute checkpointed blocks in backward() instead of keeping their insides. */
  readonly recompute: boolean;
  /** The graph of the whole pass: of a block that runs by itself, that which it is a block of. */
  readonly root: Graph;
  #entries: Entry[] = [];
  #live = new Set<ArrayBuffer>();

  constructor(mode: GraphMode, memory: Memory = new Memory(), recompute = false, root?: Graph) {
    this.mode = mode;
    this.memory = memory;
    this.recompute = recompute;
    this.root = root ?? this;
  }

  /** True for buffers that tracing graphs handed out. */
  static isTraced(buffer: ArrayBuffer): boolean {
    return buffer instanceof TracedBuffer;
  }

  /** An uninitialised float tensor owned by this graph. */
  floats(length: number): F32 {
    if (this.mode === "tracing") return tracedFloats(length);
    return this.memory.floats(this.#take(length * 4), length);
  }

  /** An uninitialised byte tensor owned by this graph. */
  bytes(length: number): U8 {
    if (this.mode === "tracing") return tracedBytes(length);
    return this.memory.bytes(this.#take(length), length);
  }

  /** An uninitialised int32 tensor owned by this graph. */
  ints(length: number): I32 {
    if (this.mode === "tracing") return tracedInts(length);
    return this.memory.ints(this.#take(length * 4), length);
  }

  /** A host array as this graph's ops take it; it lives as long as the graph. */
  input(array: F32): F32 {
    const placed = this.mode === "tracing" ? array : this.memory.put(array);
    if (placed !== array) this.#live.add(placed.buffer);
    return placed;
  }

  /** A host array that never changes, as this graph's ops take it. */
  constant(array: F32): F32 {
    return this.mode === "tracing" ? array : this.memory.constant(array);
  }

  /** Arrays one behind the other in one of their own. */
  joined(arrays: readonly F32[]): F32 {
    if (!this.memory.onDevice) return Float32Array.from(arrays.flatMap((array) => [...array]));
    const whole = this.floats(arrays.reduce((length, array) => length + array.length, 0));
    let at = 0;
    for (const array of arrays) {
      this.memory.copy(whole.subarray(at, at + array.length), array);
      at += array.length;
    }
    return whole;
  }

  /** Runs (or, while tracing, collects) one native op. */
  run(op: OpName, ...operands: (Operand | OperandList)[]): void {
    if (this.mode === "tracing") this.calls.push({ op, operands });
    else this.memory.run(native()[op] as OpCall, operands);
  }

  /** Notes how to differentiate `output`; does nothing where no input needs a gradient. */
  record(output: Var, inputs: Entry["inputs"], backward: (gradient: F32) => Gradients): Var {
    if (this.mode === "recording" && inputs.some((input) => input?.requiresGrad)) {
      output.requiresGrad = true;
      this.#entries.push({ outputs: [output], inputs, backward: ([gy]) => backward(gy!) });
    }
    return output;
  }

  /**
   * The same of an op over lists: output i comes from item i of every list of `inputs`. `backward`
   * gets the places of the outputs that have a gradient, with these, and returns as many for every
   * list of inputs.
   */
  recordEach(
    outputs: readonly Var[],
    inputs: readonly (readonly Var[])[],
    backward: (used: readonly number[], gradients: readonly F32[]) => readonly F32[][],
  ): void {
    const needing = outputs.filter((_, i) => inputs.some((list) => list[i].requiresGrad));
    if (this.mode !== "recording" || needing.length === 0) return;
    for (const output of needing) output.requiresGrad = true;
    this.#entries.push({
      outputs,
      inputs: inputs.flat(),
      backward: (gradients) => {
        const used = outputs.flatMap((_, i) => (gradients[i] ? [i] : []));
        const gys = gradients.filter((gradient) => gradient !== null);
        return backward(used, gys).flatMap((list) =>
          outputs.map((_, i) => list[used.indexOf(i)] ?? null),
        );
      },
    });
  }

  /** Runs `body` and frees what it allocated, except what it returns. Recording keeps all. */
  scope<T extends Var | readonly Var[]>(body: () => T): T {
    if (this.mode !== "running") return body();
    const outer = this.#live;
    this.#live = new Set();
    const result = body();
    const kept = new Set((Array.isArray(result) ? result : [result]).map((v) => v.data.buffer));
    for (const buffer of this.#live) {
      if (kept.has(buffer)) outer.add(buffer);
      else this.memory.give(buffer);
    }
    this.#live = outer;
    return result;
  }

  /**
   * A block of the network with one input and one output. With `recompute`, only the input is kept
   * and the block runs again in backward(); `block` must be a function of its arguments alone.
   */
  checkpoint(x: Var, block: (graph: Graph, x: Var) => Var): Var {
    if (this.mode !== "recording" || !this.recompute) return this.scope(() => block(this, x));
    const quiet = new Graph("running", this.memory, false, this.root);
    const result = quiet.scope(() => block(quiet, x));
    for (const buffer of quiet.#live) this.#live.add(buffer);
    const output = new Var(result.data, result.shape, true);
    this.#entries.push({
      outputs: [output],
      inputs: [x],
      backward: ([gradient]) => {
        const inner = new Graph("recording", this.memory, false, this.root);
        const input = new Var(x.data, x.shape, true);
        const again = block(inner, input);
        again.grad = gradient;
        inner.backward(gradient!);
        const result = input.grad;
        inner.dispose();
        return [result];
      },
    });
    return output;
  }

  /** Adds `gradient` (owned by this graph, or borrowed: it is copied) to v's gradient. */
  seed(v: Var, gradient: F32): void {
    if (v.grad) {
      this.run("add", v.grad, gradient, v.grad, v.grad.length);
    } else {
      v.grad = this.memory.floats(this.memory.take(gradient.length * 4), gradient.length);
      this.memory.copy(v.grad, gradient);
    }
  }

  /**
   * Propagates the gradients seeded so far back to the leaves. Leaves keep theirs in `grad` (free
   * them with releaseGradients); those in between are freed as they are used. `borrowed` is a
   * gradient that the caller frees itself.
   */
  backward(borrowed?: F32): void {
    for (const entry of this.#entries.reverse()) {
      const list = entry.outputs.map(({ grad }) => grad);
      const given = new Set(list.filter((gradient) => gradient !== null));
      if (given.size === 0) continue;
      for (const output of entry.outputs) output.grad = null;
      const outer = this.#live;
      this.#live = new Set();
      const gradients = entry.backward(list);
      const passedOn = new Set(borrowed && given.has(borrowed) ? [borrowed] : []);
      const owned = new Set<ArrayBuffer>();
      entry.inputs.forEach((input, i) => {
        const part = gradients[i];
        if (!part) return;
        const used = (): void => {
          if (!given.has(part) && !this.#live.has(part.buffer)) this.memory.give(part.buffer);
        };
        if (!input?.requiresGrad) {
          used();
        } else if (input.grad) {
          this.run("add", input.grad, part, input.grad, part.length);
          used();
        } else if (passedOn.has(part)) {
          this.seed(input, part);
        } else {
          if (given.has(part)) passedOn.add(part);
          input.grad = part;
          owned.add(part.buffer);
        }
      });
      for (const buffer of this.#live) if (!owned.has(buffer)) this.memory.give(buffer);
      for (const gradient of given) if (!passedOn.has(gradient)) this.memory.give(gradient.buffer);
      this.#live = outer;
    }
    this.#entries = [];
  }

  /** Gives every buffer of this graph back to the pool. */
  dispose(): void {
    for (const buffer of this.#live) this.memory.give(buffer);
    this.#live.clear();
    this.#entries = [];
  }

  #take(bytes: number): ArrayBuffer {
    const buffer = this.memory.take(bytes);
    this.#live.add(buffer);
    return buffer;
  }
}

/** Frees the gradients of leaves after an optimiser step. */
export function releaseGradients(memory: Memory, leaves: Iterable<Var>): void {
  for (const leaf of leaves) {
    if (leaf.grad) memory.give(leaf.grad.buffer);
    leaf.grad = null;
  }
}
