/**
 * The process that lib/bench/memory.ts starts: runs one inference and prints its peak memory.
 * Usage: node memory_child.js plan|ort MODEL WIDTH HEIGHT THREADS
 */
import { readFile } from "node:fs/promises";
import { readFileSync, writeFileSync } from "node:fs";
import { native } from "../binding.ts";
import { openModel } from "../infer/model.ts";
import { planOf, testPicture } from "./models.ts";
import { findOrt } from "./ort.ts";

const KIB = 1024;

/** Greatest resident bytes since the last reset (Linux) or since the start (elsewhere). */
function peakBytes(): number {
  try {
    const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "latin1"));
    if (line) return Number(line[1]) * KIB;
  } catch {
    // not Linux
  }
  return process.resourceUsage().maxRSS * KIB;
}

/** Makes the greatest size start anew, where the system can (Linux: "5" to clear_refs). */
function resetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // elsewhere the greatest size includes the start of Node
  }
}

const [kind, path, width, height, threads] = process.argv.slice(2);
const [w, h, t] = [width, height, threads].map(Number);
let weights = 0;
let baseline = 0;
const begin = (): void => {
  baseline = process.memoryUsage.rss();
  resetPeak();
};
if (kind === "ort") {
  const ort = findOrt();
  if (typeof ort === "string") throw new Error(ort);
  begin();
  const model = await readFile(path);
  weights = model.length;
  const session = await ort.session(model, t);
  await session.run({ input: ort.tensor([1, 3, h, w]) });
} else {
  native().threads(t);
  begin();
  const model = await openModel(path);
  weights = [...model.stored.values()].reduce((sum, bytes) => sum + bytes, 0);
  await planOf(model, w, h).run(testPicture(w, h));
}
process.stdout.write(`${JSON.stringify({ baseline, peak: peakBytes(), weights })}\n`);
