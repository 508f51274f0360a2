/**
 * Tensors as plain typed arrays on the JavaScript side: what weight files are read into and written
 * from, before anything native sees them. Row-major, little-endian hosts only (as Node ships).
 */
import { Spr2qError } from "../errors.ts";

/** The element types that this project keeps in files. "f16" is stored as its 16 raw bits. */
export type HostDtype = "f32" | "f16" | "u8" | "i32" | "i64";

/** Typed array that holds the elements of a {@link HostTensor}. */
export type HostData = Float32Array | Uint16Array | Uint8Array | Int32Array | BigInt64Array;

/** A row-major tensor in host memory; `data.length` is the product of `shape`. */
export interface HostTensor {
  /** Sides, slowest first; none for a scalar. */
  readonly shape: readonly number[];
  /** How the file stores its elements. */
  readonly dtype: HostDtype;
  /** Elements; 16-bit floats as their bits. */
  readonly data: HostData;
}

/** Tensors by name, in file order. */
export type TensorMap = Map<string, HostTensor>;

/** Product of `shape` (1 for a scalar). Infinity or an unsafe integer where the shape is absurd. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const side of shape) count *= side;
  return count;
}

/**
 * Elements as float32. An "f32" tensor gives its own array back (not a copy); the other types are
 * converted, "f16" exactly, integers by rounding to the nearest float.
 */
export function toFloat32(tensor: HostTensor): Float32Array {
  const { data } = tensor;
  if (data instanceof Float32Array) return data;
  if (tensor.dtype === "f16") return halfToFloat32(data as Uint16Array);
  const out = new Float32Array(data.length);
  if (data instanceof BigInt64Array) {
    for (let i = 0; i < out.length; i++) out[i] = Number(data[i]);
  } else {
    out.set(data as Uint8Array | Int32Array);
  }
  return out;
}

/** IEEE binary16 bits to float32, exactly (every half is a float). */
export function halfToFloat32(half: Uint16Array): Float32Array {
  const out = new Float32Array(half.length);
  for (let i = 0; i < out.length; i++) {
    const sign = half[i] & 0x8000 ? -1 : 1;
    const exponent = (half[i] >>> 10) & 0x1f;
    const mantissa = half[i] & 0x3ff;
    if (exponent === 31) out[i] = mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) out[i] = sign * mantissa * 2 ** -24;
    else out[i] = sign * (mantissa + 1024) * 2 ** (exponent - 25);
  }
  return out;
}

/** bfloat16 bits to float32, exactly: the bits are the upper half of the float. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  return new Float32Array(words.buffer);
}

/**
 * float32 to IEEE binary16 bits, rounding half to even as the standard does: subnormals are kept,
 * from 65520 on the result is infinite, a NaN stays one.
 */
export function toFloat16(data: Float32Array): Uint16Array {
  const words = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const out = new Uint16Array(data.length);
  for (let i = 0; i < out.length; i++) {
    const magnitude = words[i] & 0x7fffffff;
    out[i] = ((words[i] >>> 16) & 0x8000) | halfMagnitude(magnitude);
  }
  return out;
}

/** Bits of |x| as a half, given the bits of |x| as a float. */
function halfMagnitude(float: number): number {
  if (float > 0x7f800000) return 0x7e00; // NaN
  if (float >= 0x477ff000) return 0x7c00; // 65520 lies halfway to 2^16, and the tie goes up
  if (float >= 0x38800000) return shiftHalfEven(float - 0x38000000, 13); // from 2^-14: normal
  if (float <= 0x33000000) return 0; // 2^-25 lies halfway to the least subnormal; the tie is even
  return shiftHalfEven((float & 0x7fffff) | 0x800000, 126 - (float >>> 23));
}

/** value / 2^shift, rounded half to even. A carry runs into the exponent, as it should. */
function shiftHalfEven(value: number, shift: number): number {
  const floor = value >>> shift;
  const rest = value - floor * 2 ** shift;
  const half = 2 ** (shift - 1);
  return rest > half || (rest === half && floor & 1) ? floor + 1 : floor;
}

/** Constructors of the typed arrays that {@link viewAs} makes. */
interface ArrayKind<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
}

/**
 * `bytes` seen as elements of `Kind`: a view where the address allows it, a copy where it does
 * not (a file's tensors may begin at any byte). `bytes.length` must be a multiple of the size.
 */
export function viewAs<T>(Kind: ArrayKind<T>, bytes: Uint8Array): T {
  const size = Kind.BYTES_PER_ELEMENT;
  const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
  return new Kind(aligned.buffer, aligned.byteOffset, Math.floor(aligned.length / size));
}

/** Position of the first NaN or infinity of a float tensor; -1 where all is finite or integer. */
export function firstNonFinite(tensor: HostTensor): number {
  const { data } = tensor;
  if (data instanceof Float32Array) {
    for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i])) return i;
  } else if (tensor.dtype === "f16") {
    const bits = data as Uint16Array;
    for (let i = 0; i < bits.length; i++) if ((bits[i] & 0x7c00) === 0x7c00) return i;
  }
  return -1;
}

/** 64-bit integers as an "i32" tensor where all of them fit, else as "i64". */
export function narrowIntegers(shape: readonly number[], data: BigInt64Array): HostTensor {
  const narrow = new Int32Array(data.length);
  for (let i = 0; i < data.length; i++) {
    if (data[i] !== BigInt.asIntN(32, data[i])) return { shape, dtype: "i64", data };
    narrow[i] = Number(data[i]);
  }
  return { shape, dtype: "i32", data: narrow };
}

const ARRAY_OF_DTYPE = {
  f32: Float32Array,
  f16: Uint16Array,
  u8: Uint8Array,
  i32: Int32Array,
  i64: BigInt64Array,
} as const;

/** Throws ERR_ARGUMENT unless shape, dtype and data of `tensor` belong together. */
export function checkHostTensor(name: string, tensor: HostTensor): void {
  const { shape, dtype, data } = tensor;
  const bad = shape.some((side) => !Number.isSafeInteger(side) || side < 0);
  if (!Object.hasOwn(ARRAY_OF_DTYPE, dtype) || !(data instanceof ARRAY_OF_DTYPE[dtype])) {
    throw new Spr2qError("ERR_ARGUMENT", `tensor "${name}": data is not the array of ${dtype}`);
  }
  if (bad || elementCount(shape) !== data.length) {
    const got = `shape [${shape.join(", ")}] with ${data.length} elements`;
    throw new Spr2qError("ERR_ARGUMENT", `tensor "${name}": ${got} do not belong together`);
  }
}
