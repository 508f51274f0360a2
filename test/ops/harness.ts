/**
 * What every op test needs: seeded random tensors, a run on a chosen backend, comparison by
 * max|difference| / max|reference|, and finite differences against the reference backend.
 */
import { readFileSync } from "node:fs";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import { toFloat32 } from "../../lib/io/host_tensor.ts";
import { testData } from "../data.ts";

/** mulberry32: a small seeded generator of uniform numbers in [0, 1). */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** n values in [low, high). */
export function random(n: number, seed: number, low = -1, high = 1): F32 {
  const next = uniform(seed);
  return Float32Array.from({ length: n }, () => low + (high - low) * next());
}

export function zeros(n: number): F32 {
  return new Float32Array(n);
}

/** Runs `body` on one backend and restores the one before. */
export function on<T>(backend: string, body: () => T): T {
  const before = native().backendName();
  native().useBackend(backend);
  try {
    return body();
  } finally {
    native().useBackend(before);
  }
}

/**
 * The fast backends of this machine (everything but "reference"), or those of them that
 * SPR2Q_TEST_BACKENDS lists.
 */
export const fastBackends: readonly string[] = native()
  .backends()
  .filter((name) => name !== "reference")
  .filter((name) => process.env.SPR2Q_TEST_BACKENDS?.split(",").includes(name) ?? true);

/** max|a - b| / max|b|; 0 where both are empty or equal. NaN anywhere gives Infinity. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < b.length; i++) {
    if (Number.isNaN(a[i]) || Number.isNaN(b[i])) return Number.POSITIVE_INFINITY;
    difference = Math.max(difference, Math.abs(a[i] - b[i]));
    scale = Math.max(scale, Math.abs(b[i]));
  }
  return difference === 0 ? 0 : difference / Math.max(scale, 1e-30);
}

/**
 * Central differences of `loss` by x at the listed positions, against `gradient`; returns the
 * largest |difference| divided by the largest |gradient| among them.
 */
export function finiteDifferenceError(
  loss: () => number,
  x: F32,
  gradient: ArrayLike<number>,
  positions: readonly number[],
  step = 1e-2,
): number {
  let worst = 0;
  let scale = 0;
  for (const i of positions) {
    const kept = x[i];
    x[i] = kept + step;
    const high = x[i];
    const above = loss();
    x[i] = kept - step;
    const low = x[i];
    const below = loss();
    x[i] = kept;
    worst = Math.max(worst, Math.abs((above - below) / (high - low) - gradient[i]));
    scale = Math.max(scale, Math.abs(gradient[i]));
  }
  return worst / Math.max(scale, 1e-30);
}

/** The bytes of many arrays one behind the other: equal where all their bits are. */
export function bytesOf(...arrays: readonly F32[]): Buffer {
  return Buffer.concat(arrays.map((a) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)));
}

/** sum of a * b in double: the scalar that op tests differentiate. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

/** Tensors of one golden file as Float32Array by name. */
export function golden(path: string): Map<string, { shape: readonly number[]; data: F32 }> {
  const { tensors } = readSafetensors(readFileSync(testData(path)), path);
  return new Map(
    [...tensors].map(([name, tensor]) => [
      name,
      { shape: tensor.shape, data: Float32Array.from(toFloat32(tensor)) },
    ]),
  );
}
