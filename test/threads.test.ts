/** Threads where nobody asked for a number: one for each core that the process may use. */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { expect, test } from "vitest";
import { packageRoot } from "../lib/binding.ts";

const PROGRAM = `const addon = process.env.SPR2Q_NATIVE
  ? require(process.env.SPR2Q_NATIVE)
  : require("node-gyp-build")(${JSON.stringify(packageRoot())});
console.log(addon.threads());`;

/** Threads of a fresh process, started by `prefix`. */
function threadsOf(...prefix: string[]): number {
  const [file, ...args] = [...prefix, process.execPath, "-e", PROGRAM];
  return Number(execFileSync(file, args, { encoding: "utf8" }));
}

test("a process uses every core that there is for it", () => {
  expect(threadsOf()).toBe(availableParallelism());
});

const allowed =
  process.platform === "linux"
    ? /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]
    : undefined;
const hasTaskset = !spawnSync("taskset", ["--version"]).error;
if (!hasTaskset) console.log("skipped: taskset is not installed");

test.runIf(allowed && hasTaskset)("a process held to one core uses one thread", () => {
  expect(threadsOf("taskset", "--cpu-list", allowed!)).toBe(1);
});
