/** Threads where nobody asked for a number: one for each core that the process may use. */
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { expect, test } from "vitest";

const PROGRAM = `const addon = process.env.SPR2Q_NATIVE
  ? require(process.env.SPR2Q_NATIVE)
  : require("node-gyp-build")(process.cwd());
console.log(addon.threads());`;

/** Threads of a fresh process, started by `prefix`. */
function threadsOf(...prefix: string[]): number {
  const [file, ...args] = [...prefix, process.execPath, "-e", PROGRAM];
  return Number(execFileSync(file, args, { encoding: "utf8" }));
}

test("a process uses every core that there is for it", () => {
  expect(threadsOf()).toBe(availableParallelism());
});

test.runIf(process.platform === "linux")("a process held to one core uses one thread", () => {
  expect(threadsOf("taskset", "--cpu-list", "0")).toBe(1);
});
