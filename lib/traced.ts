/**
 * Stand-ins for the values of a plan while it is traced: arrays with a length and a buffer, by which
 * calls are told apart, and without any elements. Real buffers, even untouched ones, count as memory
 * of Node's: a thousand of an image's size make it collect garbage all the time.
 */
import type { F32, I32, U8 } from "./binding.ts";
import type { NativeArray } from "./tensor.ts";

/** The buffer of a stand-in: its size is what a plan must find room for. */
export class TracedBuffer extends ArrayBuffer {
  readonly #bytes: number;

  constructor(bytes: number) {
    super(0);
    this.#bytes = bytes;
  }

  override get byteLength(): number {
    return this.#bytes;
  }
}

/** Where a stand-in lies in its buffer: first byte and number of elements. */
type Extent = readonly [number, number];

class TracedFloats extends Float32Array<ArrayBuffer> {
  readonly #extent: Extent;

  constructor(buffer: ArrayBuffer, ...extent: Extent) {
    super(buffer, 0, 0);
    this.#extent = extent;
  }

  override get byteOffset(): number {
    return this.#extent[0];
  }

  override get length(): number {
    return this.#extent[1];
  }

  override get byteLength(): number {
    return 4 * this.#extent[1];
  }

  override subarray(begin = 0, end: number = this.length): F32 {
    return new TracedFloats(this.buffer, this.byteOffset + 4 * begin, end - begin);
  }
}

class TracedInts extends Int32Array<ArrayBuffer> {
  readonly #length: number;

  constructor(length: number) {
    super(new TracedBuffer(4 * length), 0, 0);
    this.#length = length;
  }

  override get length(): number {
    return this.#length;
  }

  override get byteLength(): number {
    return 4 * this.#length;
  }
}

class TracedBytes extends Uint8Array<ArrayBuffer> {
  readonly #length: number;

  constructor(length: number) {
    super(new TracedBuffer(length), 0, 0);
    this.#length = length;
  }

  override get length(): number {
    return this.#length;
  }

  override get byteLength(): number {
    return this.#length;
  }
}

export const tracedFloats = (length: number): F32 =>
  new TracedFloats(new TracedBuffer(4 * length), 0, length);
export const tracedInts = (length: number): I32 => new TracedInts(length);
export const tracedBytes = (length: number): U8 => new TracedBytes(length);

/** An array like a stand-in, over a real buffer of its buffer's size. */
export function realArray(standIn: NativeArray, buffer: ArrayBuffer): NativeArray {
  const { byteOffset, length } = standIn;
  if (standIn instanceof Uint8Array) return new Uint8Array(buffer, byteOffset, length);
  if (standIn instanceof Int32Array) return new Int32Array(buffer, byteOffset, length);
  return new Float32Array(buffer, byteOffset, length);
}
