/**
 * Tensors on the GPU. A DeviceArray stands where a typed array stands elsewhere: it has a length, a
 * buffer and subarrays, and no elements: reading one throws. Ops take it as it is; what must be read
 * or written on the host goes through {@link readable} and {@link assign}, so that every copy
 * between the two is written down. DeviceMemory is the pool behind a Graph whose ops run there.
 */
import { describeCuda, type F32, type I32, native, type U8 } from "./binding.ts";
import { expected, Spr2qError } from "./errors.ts";
import { Memory, type NativeArray, type OpCall } from "./tensor.ts";

/** Where a command or a model runs: "auto" is the GPU where there is one. */
export type DeviceChoice = "auto" | "cpu" | "cuda";

/** One block of memory on the GPU, in the place of an ArrayBuffer. */
class DeviceBlock {
  readonly address: number;
  readonly byteLength: number;

  constructor(address: number, byteLength: number) {
    this.address = address;
    this.byteLength = byteLength;
  }
}

/** The bytes of an element by kind of array. */
const ELEMENT = { f32: 4, i32: 4, u8: 1 } as const;
type Kind = keyof typeof ELEMENT;

/** A view of a block. */
export class DeviceArray {
  readonly buffer: DeviceBlock;
  readonly byteOffset: number;
  readonly length: number;
  readonly kind: Kind;
  /** What the native half takes for it: address, elements, bytes an element. */
  readonly place: Float64Array;

  constructor(kind: Kind, buffer: DeviceBlock, byteOffset: number, length: number) {
    this.kind = kind;
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.length = length;
    this.place = Float64Array.of(buffer.address + byteOffset, length, ELEMENT[kind]);
  }

  get byteLength(): number {
    return this.length * ELEMENT[this.kind];
  }

  subarray(begin: number, end: number = this.length): DeviceArray {
    const from = this.byteOffset + begin * ELEMENT[this.kind];
    return new DeviceArray(this.kind, this.buffer, from, end - begin);
  }
}

// An element that host code reads by mistake would be undefined, and NaN in the sum that follows.
Object.defineProperty(DeviceArray.prototype, "0", {
  get(): never {
    throw expected("ERR_INTERNAL", "element of a tensor", "one in host memory", "one on the GPU");
  },
});

/** Codes of the native half's failures on the GPU, by the last word of its own. */
const CODES: Readonly<Record<string, Spr2qError["code"]>> = {
  OUT_OF_MEMORY: "ERR_OUT_OF_MEMORY",
  DEVICE_LOST: "ERR_GPU_LOST",
  LAUNCH_FAILED: "ERR_GPU_LOST",
  BAD_ARGUMENT: "ERR_NATIVE",
  SCRATCH_IN_CAPTURE: "ERR_NATIVE",
};

/** What to do about it. */
const FIXES: Partial<Record<Spr2qError["code"], string>> = {
  ERR_OUT_OF_MEMORY: "Use a smaller --batch, --patch or --tile, or free the GPU: see nvidia-smi.",
  ERR_GPU_LOST: "Start again: training goes on from its checkpoint with --resume.",
  ERR_GPU_UNAVAILABLE: "See spr2q doctor, or use --device cpu.",
};

/** A failure of the native half as an Spr2qError where it speaks of the GPU, else as it is. */
export function deviceError(cause: unknown): unknown {
  const text = cause instanceof Error ? cause.message : "";
  const found = /ERR_CUDA_([A-Z_]+): /.exec(text);
  if (!found || text.startsWith("CUDA: ")) return cause;
  const code = CODES[found[1]] ?? "ERR_GPU_UNAVAILABLE";
  return new Spr2qError(code, `CUDA: ${text}. ${FIXES[code] ?? ""}`.trimEnd(), { cause });
}

/** `body` with the failures of the GPU as Spr2qErrors. */
export function onDevice<T>(body: () => T): T {
  try {
    return body();
  } catch (cause) {
    throw deviceError(cause);
  }
}

/** Memory of the GPU for graphs: ops on its arrays run there. One for each thread is enough. */
export class DeviceMemory extends Memory {
  override readonly onDevice = true;
  readonly #constants = new WeakMap<NativeArray, NativeArray>();

  /** Opens the GPU for this thread. ERR_GPU_UNAVAILABLE says why there is none. */
  constructor() {
    super();
    chosenDevice("cuda");
    onDevice(() => native().openDevice());
  }

  override take(bytes: number): ArrayBuffer {
    const address = onDevice(() => native().deviceTake(bytes));
    return new DeviceBlock(address, bytes) as unknown as ArrayBuffer;
  }

  override give(buffer: ArrayBuffer): void {
    const { address } = buffer as unknown as DeviceBlock;
    onDevice(() => native().deviceGive(address));
  }

  override trim(): void {
    onDevice(() => native().deviceTrim());
  }

  override get peakBytes(): number {
    return native().deviceCounters().peak;
  }

  /** Half of the GPU's: the rest holds leaves, their moments and the allocator's spare blocks. */
  override get tapeBytes(): number {
    return describeCuda().devices[0].memoryBytes / 2;
  }

  override floats(buffer: ArrayBuffer, length: number): F32 {
    return view("f32", buffer, length) as unknown as F32;
  }

  override bytes(buffer: ArrayBuffer, length: number): U8 {
    return view("u8", buffer, length) as unknown as U8;
  }

  override ints(buffer: ArrayBuffer, length: number): I32 {
    return view("i32", buffer, length) as unknown as I32;
  }

  override run(op: OpCall, operands: readonly unknown[]): void {
    const place = (o: unknown): unknown =>
      o instanceof DeviceArray ? o.place : Array.isArray(o) ? o.map(place) : o;
    const placed = operands.map(place);
    onDevice(() => op(...placed));
  }

  override copy(to: F32, from: F32): void {
    const [target, source] = [addressOf(to), addressOf(from)];
    onDevice(() => native().deviceCopy(target, source, from.byteLength));
  }

  override put<T extends NativeArray>(array: T): T {
    const buffer = this.take(array.byteLength);
    const kind = array instanceof Float32Array ? "f32" : array instanceof Uint8Array ? "u8" : "i32";
    const target = view(kind, buffer, array.length) as unknown as T;
    assign(target, array);
    return target;
  }

  override constant(array: F32): F32 {
    let known = this.#constants.get(array) as F32 | undefined;
    if (!known) {
      known = this.put(array);
      this.#constants.set(array, known);
    }
    return known;
  }
}

function view(kind: Kind, buffer: ArrayBuffer, length: number): DeviceArray {
  return new DeviceArray(kind, buffer as unknown as DeviceBlock, 0, length);
}

const isPlaced = (array: unknown): array is DeviceArray => array instanceof DeviceArray;

/** Address of a tensor on the GPU; ERR_INTERNAL for a host array. */
export function addressOf(array: unknown): number {
  if (!isPlaced(array)) throw expected("ERR_INTERNAL", "tensor", "one on the GPU", "a host array");
  return array.place[0];
}

/** True for a tensor on the GPU. */
export function isOnDevice(array: NativeArray): boolean {
  return isPlaced(array);
}

/** The array itself, or a copy in host memory of one on the GPU (which waits for the ops before). */
export function readable<T extends NativeArray>(array: T): T {
  if (!isPlaced(array)) return array;
  const Host = { f32: Float32Array, i32: Int32Array, u8: Uint8Array }[array.kind];
  const copy = new Host(array.length) as T;
  onDevice(() => native().deviceDownload(array.place[0], copy));
  return copy;
}

/** Writes `values`, in host memory, over the elements of `array`, wherever it lies. */
export function assign<T extends NativeArray>(array: T, values: ArrayLike<number>): void {
  if (!isPlaced(array)) {
    array.set(values);
    return;
  }
  const Host = { f32: Float32Array, i32: Int32Array, u8: Uint8Array }[array.kind];
  const host = (values instanceof Host ? values : Host.from(values)) as T;
  if (host.length !== array.length) {
    throw expected("ERR_INTERNAL", "tensor on the GPU", `${array.length} values`, `${host.length}`);
  }
  onDevice(() => native().deviceUpload(array.place[0], host));
}

/** A pool of memory on the chosen device. "cuda" where there is none is ERR_GPU_UNAVAILABLE. */
export function memoryOn(choice: DeviceChoice): Memory {
  return chosenDevice(choice) === "cuda" ? new DeviceMemory() : new Memory();
}

/**
 * Which device `choice` means here: "auto" is the GPU where a usable one is, else the CPU.
 * ERR_GPU_UNAVAILABLE for "cuda" says why there is none.
 */
export function chosenDevice(choice: DeviceChoice): "cpu" | "cuda" {
  if (choice === "cpu") return choice;
  const { code, text, hostMemory } = describeCuda();
  if (choice === "auto") return code === "OK" && !hostMemory ? "cuda" : "cpu";
  if (code === "OK") return choice;
  const fix = FIXES.ERR_GPU_UNAVAILABLE;
  throw new Spr2qError("ERR_GPU_UNAVAILABLE", `CUDA: ${text} (${code}). ${fix}`);
}

/** Runs ops on host arrays with the GPU's bits: copied there, run, copied back. */
export function callOnDevice(memory: Memory): (op: OpCall, operands: readonly unknown[]) => void {
  return (op, operands) => {
    const arrays = operands.flat().filter((o) => ArrayBuffer.isView(o)) as NativeArray[];
    const placed = new Map(arrays.map((array) => [array, memory.put(array)]));
    const there = (o: unknown): unknown => placed.get(o as NativeArray) ?? o;
    try {
      memory.run(
        op,
        operands.map((o) => (Array.isArray(o) ? o.map(there) : there(o))),
      );
      for (const [host, there] of placed) host.set(readable(there));
    } finally {
      for (const there of placed.values()) memory.give(there.buffer);
    }
  };
}
