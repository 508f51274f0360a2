/** Seeded operands of the kernel benchmarks, in aligned memory. */
import type { F32, U8 } from "../binding.ts";
import { native } from "../binding.ts";
import { generator } from "../random.ts";

/** Uniform floats of mean 0 and about unit variance, times `scale`. */
export function randomFloats(count: number, seed: number, scale = 1): F32 {
  const draw = generator(seed, 0xbe9c);
  const data = new Float32Array(native().allocate(Math.max(4, count * 4)), 0, count);
  for (let i = 0; i < count; i++) data[i] = (draw() - 0.5) * 3.46 * scale;
  return data;
}

/** Codes of `bits` bits, one a byte. */
export function randomCodes(count: number, bits: number, seed: number): U8 {
  const draw = generator(seed, 0xc0de);
  const data = new Uint8Array(native().allocate(Math.max(1, count)), 0, count);
  for (let i = 0; i < count; i++) data[i] = Math.floor(draw() * 2 ** bits);
  return data;
}

/** Floats to be written. */
export function emptyFloats(count: number): F32 {
  return new Float32Array(native().allocate(count * 4), 0, count);
}
