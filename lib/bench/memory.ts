/**
 * Peak memory of one inference, measured in a process of its own (lib/bench/memory_child.ts): the
 * greatest resident size, less what the process held before it opened the model, less the weights.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** What the child reports, in bytes. */
export interface PeakMemory {
  readonly baseline: number;
  readonly peak: number;
  readonly weights: number;
}

/** Who runs: our plan of a model file, or ONNX Runtime on an ONNX file. */
export type MemoryKind = "plan" | "ort";

/** Milliseconds that one measurement may take. */
const LIMIT_MS = 300_000;

/** Bytes above baseline and weights, at least one page. */
export function aboveWeights({ baseline, peak, weights }: PeakMemory): number {
  return Math.max(4096, peak - baseline - weights);
}

/** Measures one inference; a string says why it could not be. */
export async function peakMemory(
  kind: MemoryKind,
  model: string,
  width: number,
  height: number,
  threads: number,
): Promise<PeakMemory | string> {
  const script = fileURLToPath(new URL("./memory_child.js", import.meta.url));
  if (!existsSync(script)) return "needs the compiled package (npm run build:ts)";
  const args = [script, kind, model, width, height, threads].map(String);
  try {
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: LIMIT_MS });
    return JSON.parse(stdout) as PeakMemory;
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string };
    return `the measuring process failed: ${(stderr || message).trim().split("\n").at(-1)}`;
  }
}
