/**
 * Memory of tensors: 64-byte aligned buffers from the native side, kept in a pool by size so that a
 * training step reuses what the step before it gave back. A tensor is a typed array; its shape
 * travels beside it.
 */
import { type F32, type I32, native, type U8 } from "./binding.ts";

/** Any array that a native op takes. */
export type NativeArray = F32 | U8 | I32;

/** Buffers are rounded up to this many bytes, so that near-equal sizes share a pool entry. */
const GRAIN = 4096;

/** A native op with its operands in order. */
export type OpCall = (...operands: unknown[]) => void;

/**
 * A pool of buffers. `take` never clears: contents are undefined. Graphs make their arrays and run
 * their ops through it, so that another kind of memory (device.ts) brings its own ways along.
 */
export class Memory {
  /** True where arrays cannot be read by the host. */
  readonly onDevice: boolean = false;
  readonly #free = new Map<number, ArrayBuffer[]>();
  #held = 0;
  #peak = 0;

  take(bytes: number): ArrayBuffer {
    const rounded = Math.max(GRAIN, Math.ceil(bytes / GRAIN) * GRAIN);
    const list = this.#free.get(rounded);
    if (list?.length) return list.pop()!;
    this.#held += rounded;
    this.#peak = Math.max(this.#peak, this.#held);
    return native().allocate(rounded);
  }

  give(buffer: ArrayBuffer): void {
    const list = this.#free.get(buffer.byteLength);
    if (list) list.push(buffer);
    else this.#free.set(buffer.byteLength, [buffer]);
  }

  /** Forgets the free buffers, for example after an image of another size. */
  trim(): void {
    for (const [bytes, list] of this.#free) this.#held -= bytes * list.length;
    this.#free.clear();
  }

  /** The first `length` elements of a buffer. */
  floats(buffer: ArrayBuffer, length: number): F32 {
    return new Float32Array(buffer, 0, length);
  }

  bytes(buffer: ArrayBuffer, length: number): U8 {
    return new Uint8Array(buffer, 0, length);
  }

  ints(buffer: ArrayBuffer, length: number): I32 {
    return new Int32Array(buffer, 0, length);
  }

  run(op: OpCall, operands: readonly unknown[]): void {
    op(...operands);
  }

  /** to = from, of equal lengths. */
  copy(to: F32, from: F32): void {
    to.set(from);
  }

  /** A host array where ops can read and write it: itself, or a copy that lasts until given back. */
  put<T extends NativeArray>(array: T): T {
    return array;
  }

  /** As put(), made once, for an array that never changes. */
  constant(array: F32): F32 {
    return array;
  }

  /** Largest number of bytes held at once, free ones included. */
  get peakBytes(): number {
    return this.#peak;
  }

  /** Bytes that a training step may keep for its backward half. */
  get tapeBytes(): number {
    return 4e9;
  }
}

/** A float tensor of its own, outside every pool (weights, optimiser state). */
export function floats(length: number): F32 {
  return new Float32Array(native().allocate(Math.max(4, length * 4)), 0, length).fill(0);
}

/** Zeroed bytes on a cache line, outside every pool. */
export function bytes(length: number): U8 {
  return new Uint8Array(native().allocate(length), 0, length).fill(0);
}

/** A copy of `data` outside every pool. */
export function floatsFrom(data: ArrayLike<number>): F32 {
  const copy = floats(data.length);
  copy.set(data);
  return copy;
}
