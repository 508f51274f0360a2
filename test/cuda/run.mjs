// npm run test:cuda: builds the kernel sources of native/cuda for this processor (test/cuda/shim)
// and runs the op tests over them, with the goldens where SPR2Q_TEST_DATA has them, and training and
// plans end to end: once with the operand widths of sm_89 (4-bit tensor cores), coded products and
// plans once more with those of sm_90 (8-bit), and where blocks wait for or add up after others, once
// more with three blocks at a time. Counts go to test-cuda.json, test-cuda-90.json and
// test-cuda-blocks.json. Further arguments are vitest's.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const build = join(root, "build-cuda-shim");
const library = join(build, "libspr2q_cuda_shim.so");

function run(command, args, environment = {}) {
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...environment },
  });
  if (status !== 0) process.exit(status ?? 1);
}

run("cmake", ["-S", "test/cuda/shim", "-B", build, "-DCMAKE_BUILD_TYPE=None"]);
run("cmake", ["--build", build, "--parallel", "2"]);

const given = process.argv.slice(2);
const passes = [
  { architecture: "89", blocks: "1", tests: ["test/ops", "test/cuda"], counts: "test-cuda.json" },
  {
    architecture: "90",
    blocks: "1",
    tests: [
      "test/ops/coded",
      "test/cuda/bench",
      "test/cuda/chunks",
      "test/cuda/plan",
      "test/cuda/segments",
    ],
    counts: "test-cuda-90.json",
  },
  {
    architecture: "89",
    blocks: "3",
    tests: [
      "test/ops/sort_tokens",
      "test/ops/quantizer",
      "test/ops/losses",
      "test/ops/layer_norm",
      "test/cuda/chunks",
      "test/cuda/plan",
      "test/cuda/segments",
    ],
    counts: "test-cuda-blocks.json",
  },
];
for (const { architecture, blocks, tests, counts } of passes) {
  console.log(`== kernels as on sm_${architecture}, blocks at a time: ${blocks}`);
  run(
    process.execPath,
    [
      join(root, "node_modules", "vitest", "vitest.mjs"),
      "run",
      ...(given.length ? given : tests),
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${counts}`,
      "--testTimeout=600000",
    ],
    {
      SPR2Q_CUDA_LIBRARY: library,
      SPR2Q_SHIM_ARCH: architecture,
      SPR2Q_SHIM_BLOCKS: blocks,
      SPR2Q_TEST_BACKENDS: "cuda-shim",
    },
  );
}
