/**
 * Tests that run in an arm64 Node under qemu (run.mjs), transformed by this machine's own. vitest
 * starts its workers with child_process.fork(), which takes the program from process.execPath.
 */
import { defineConfig } from "vitest/config";

const { SPR2Q_ARM64_NODE, SPR2Q_ARM64_TESTS } = process.env;
if (!SPR2Q_ARM64_NODE || !SPR2Q_ARM64_TESTS) throw new Error("start this with npm run test:arm64");
process.execPath = SPR2Q_ARM64_NODE;

export default defineConfig({
  test: {
    include: SPR2Q_ARM64_TESTS.split(" "),
    pool: "forks",
    testTimeout: 120_000,
    maxWorkers: 2,
  },
});
