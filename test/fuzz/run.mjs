// Coverage-guided fuzzing by LLVM's libFuzzer:
//   npm run test:fuzz                            some 10 seconds a target, from the committed corpus
//   npm run test:fuzz -- --executions 10000000   that many inputs in all, shared out between the targets
//   npm run test:fuzz -- --only png,plan         some targets;  --keep: their corpus goes to corpus/
// Native targets (fuzz_ops, fuzz_plan) run without Node; the others are JavaScript under the same
// libFuzzer, arguments.ts with the addon's own counters. Needs clang with its runtime (Debian: clang,
// libclang-rt-dev); where that is missing it says so and passes. A finding is saved under build-fuzz
// and makes the exit code 1; so does a hang of 20 seconds, or more than 3 GiB.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildTargets } from "./targets.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const build = join(root, "build-fuzz");
const CORPUS = join(root, "test", "fuzz", "corpus");
/** Share of the executions: the readers are many times as fast as a decoder or a kernel. */
const TARGETS = [
  { name: "pth", share: 0.25, most: 2048 },
  { name: "safetensors", share: 0.2, most: 2048 },
  { name: "png", share: 0.05, most: 1024 },
  { name: "arguments", share: 0.15, most: 128, addon: true },
  { name: "ops", share: 0.2, most: 192, native: true },
  { name: "plan", share: 0.15, most: 384, native: true },
];
const SHORT_SECONDS = 10;
const KEPT_BYTES = 16 * 1024; // of a target's committed corpus at most

const { values: options } = parseArgs({
  options: {
    executions: { type: "string" },
    seconds: { type: "string" },
    only: { type: "string" },
    keep: { type: "boolean", default: false },
  },
});
const chosen = TARGETS.filter(
  ({ name }) => !options.only || options.only.split(",").includes(name),
);
const shares = chosen.reduce((sum, { share }) => sum + share, 0);

const output = (program, args) => {
  const { stdout } = spawnSync(program, args, { cwd: root, encoding: "utf8" });
  return stdout?.trim() ?? "";
};
function must(program, args) {
  const { status } = spawnSync(program, args, {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) process.exit(status ?? 1);
}

/** Why nothing can be fuzzed here, or null. */
function missing() {
  const resources = output("clang++", ["-print-resource-dir"]);
  if (!resources) return "clang++ is not installed";
  const libraries = join(resources, "lib");
  const found = existsSync(libraries) ? readdirSync(libraries, { recursive: true }) : [];
  if (!found.some((name) => name.includes("clang_rt.fuzzer_no_main"))) {
    return "clang has no libFuzzer (Debian: libclang-rt-dev)";
  }
  return output("cmake", ["--version"]) ? null : "cmake is not installed";
}

/** Inputs of the committed corpus, one in base64 a line. */
function committed(name) {
  const path = join(CORPUS, `${name}.txt`);
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => Buffer.from(line, "base64"));
}

function folderOf(kind, name) {
  const folder = join(build, kind, name);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** The command that runs a target with libFuzzer's arguments, and its environment. */
function commandOf(target, counters, args) {
  if (target.native) return { program: join(build, `fuzz_${target.name}`), args, env: {} };
  const drive = join(root, "test", "fuzz", "drive.mjs");
  const seeds = join(build, "seeds", target.name);
  const env = {};
  if (target.addon) {
    // libFuzzer before AddressSanitizer, which would take the counters for itself.
    const runtime = `libclang_rt.asan-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so`;
    env.LD_PRELOAD = `${join(build, "engine.node")} ${output("clang++", [`-print-file-name=${runtime}`])}`;
    env.SPR2Q_NATIVE = join(build, "fuzz_addon.node");
  }
  return {
    program: process.execPath,
    args: [drive, target.name, `${counters}`, seeds, ...args],
    env,
  };
}

function fuzz(target, counters) {
  const { name, share, most } = target;
  const corpus = folderOf("corpus", name);
  const regressions = folderOf("regressions", name);
  const seeds = folderOf("seeds", name);
  for (const input of committed(name)) {
    writeFileSync(join(regressions, createHash("sha1").update(input).digest("hex")), input);
  }
  const runs = options.executions ? Math.ceil((Number(options.executions) * share) / shares) : -1;
  const limit = options.executions
    ? [`-runs=${runs}`]
    : [`-max_total_time=${options.seconds ?? SHORT_SECONDS}`];
  const { program, args, env } = commandOf(target, counters, [
    corpus,
    regressions,
    seeds,
    ...limit,
    `-max_len=${most}`,
    "-timeout=20",
    "-rss_limit_mb=3072",
    "-print_final_stats=1",
    "-print_funcs=0",
    "-detect_leaks=0",
    "-reload=0",
    "-len_control=20",
    `-artifact_prefix=${join(build, `${name}-`)}`,
  ]);
  // To a file: what does not fit a pipe at once would be lost.
  const log = join(build, `${name}.log`);
  const to = openSync(log, "w");
  const began = Date.now();
  const child = spawn(program, args, {
    cwd: root,
    stdio: ["ignore", to, to],
    env: {
      ...process.env,
      ...env,
      ASAN_OPTIONS:
        "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64:verify_asan_link_order=0",
      UBSAN_OPTIONS: "print_stacktrace=1",
    },
  });
  return new Promise((resolve) => {
    child.on("close", (status, signal) => {
      closeSync(to);
      const text = readFileSync(log, "utf8");
      const count = (pattern) => Number([...text.matchAll(pattern)].at(-1)?.[1] ?? Number.NaN);
      const modules = count(/Loaded \d+ modules\s+\((\d+) inline/g);
      resolve({
        target: name,
        executions: count(/number_of_executed_units: (\d+)/g),
        seconds: Math.round((Date.now() - began) / 1000),
        reached: count(/ cov: (\d+)/g),
        counters: target.native
          ? modules
          : count(/INFO: (\d+) counters in the modules/g) + (target.addon ? modules - counters : 0),
        inputs: readdirSync(corpus).length,
        megabytes: count(/peak_rss_mb:\s+(\d+)/g),
        status: status === 0 ? "ok" : `FINDING (${signal ?? status})`,
        tail: text.slice(-6000),
      });
    });
  });
}

/** The working corpus, smallest inputs first, as far as it may be committed. */
function keepCorpus(name) {
  const folder = folderOf("corpus", name);
  const files = readdirSync(folder).map((file) => join(folder, file));
  files.sort((a, b) => statSync(a).size - statSync(b).size || (a < b ? -1 : 1));
  const lines = new Set(committed(name).map((input) => input.toString("base64")));
  let bytes = [...lines].join("\n").length;
  for (const file of files) {
    const line = readFileSync(file).toString("base64");
    if (bytes + line.length > KEPT_BYTES) break;
    if (!lines.has(line)) bytes += line.length + 1;
    lines.add(line);
  }
  mkdirSync(CORPUS, { recursive: true });
  writeFileSync(join(CORPUS, `${name}.txt`), `${[...lines].join("\n")}\n`);
}

const reason = missing();
if (reason) {
  console.log(`fuzzing skipped: ${reason}`);
  process.exit(0);
}
must("cmake", ["-S", "test/fuzz", "-B", build, "-DCMAKE_CXX_COMPILER=clang++"]);
const parts = new Set(
  chosen.flatMap(({ name, native, addon }) =>
    native ? [`fuzz_${name}`] : addon ? ["engine", "fuzz_addon"] : ["engine"],
  ),
);
must("cmake", ["--build", build, "--parallel", "2", "--target", ...parts]);
const counters = chosen.some(({ native }) => !native) ? buildTargets(root) : 0;
if (!options.executions) rmSync(join(build, "corpus"), { recursive: true, force: true });

let failed = false;
let total = 0;
console.log("| target | executions | seconds | a second | counters reached | inputs kept | MB | |");
console.log("|---|---|---|---|---|---|---|---|");
for (const target of chosen) {
  const r = await fuzz(target, counters);
  total += r.executions || 0;
  const rate = Math.round(r.executions / r.seconds);
  console.log(
    `| ${r.target} | ${r.executions} | ${r.seconds} | ${rate} | ${r.reached} of ${r.counters} | ${r.inputs} | ${r.megabytes} | ${r.status} |`,
  );
  if (r.status !== "ok") {
    failed = true;
    console.log(r.tail);
  } else if (options.keep) keepCorpus(target.name);
}
console.log(`${total} executions`);
process.exit(failed ? 1 : 0);
