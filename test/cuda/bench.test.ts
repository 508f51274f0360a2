/**
 * bench/cuda/bench.py without a GPU: over the shim its checks of every op pass (in the sm_90 pass
 * of npm run test:cuda, so that both operand widths are covered), and over the real library it says
 * that there is no GPU, with its own exit code.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { describeCuda, packageRoot } from "../../lib/binding.ts";

const script = join(packageRoot(), "bench", "cuda", "bench.py");
const built = join(packageRoot(), "build", "Release", "libspr2q_cuda.so");
const hasPython = spawnSync("python3", ["-c", "import numpy"]).status === 0;
const bench = (library: string) =>
  spawnSync("python3", [script, "--library", library, "--no-sanitizer", "--check-only"], {
    encoding: "utf8",
  });

const shim = process.env.SPR2Q_SHIM_ARCH === "90" ? process.env.SPR2Q_CUDA_LIBRARY : undefined;

test.skipIf(!shim || !hasPython)("over the shim every op is checked (python3, numpy)", () => {
  const { status, stdout, stderr } = bench(shim as string);
  expect(stdout, stderr).toMatch(/checks: \d+ cases, (\d+) of \1 ops, 0 failures/);
  expect(status).toBe(0);
});

// The shim pass has a "device" that is none; elsewhere a machine may have a real GPU.
const noGpu = describeCuda().hostMemory || describeCuda().code !== "OK";

test.skipIf(!existsSync(built) || !hasPython || shim !== undefined || !noGpu)(
  "over the real library without a GPU it says so (npm run build:cuda, python3, numpy)",
  () => {
    const { status, stderr } = bench(built);
    expect(stderr).toMatch(/^ERR_CUDA_\w+: .*nothing was run/m);
    expect(status).toBe(2);
  },
);
