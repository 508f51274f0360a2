/** Helpers of the format tests: seeded numbers, folders that vanish, and expected error codes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { Spr2qError } from "../../lib/errors.ts";

/** Uniform numbers in [0, 1) from a seed (xorshift32). */
export function random(seed: number): () => number {
  let state = (seed * 0x9e3779b1) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}

/** A folder that is removed when the test ends. */
export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), "spr2q-test-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** "CODE: message" of the Spr2qError that `action` throws; any other outcome is a failure. */
export function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof Spr2qError) return `${error.code}: ${error.message}`;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** {@link refusal} of a promise. */
export async function refusalOf(promise: Promise<unknown>): Promise<string> {
  const [result] = await Promise.allSettled([promise]);
  return refusal(() => {
    if (result.status === "rejected") throw result.reason;
  });
}

/** True where the optional package sharp is installed. */
export const hasSharp: boolean = await import("sharp").then(
  () => true,
  () => false,
);
