// Instruction-count gate: a slow-down of a hot kernel shows here on any machine, however noisy.
//   1. callgrind counts the instructions of each of the six hottest kernels (kernels.cpp) on the
//      AVX2 path, which Debian's valgrind knows; more than 3 % above counts.json fails.
//   2. objdump counts vpdpbusd, vector loads and spills in the AVX-512 objects, which it does not
//      know; 3 % more loads or spills, or 3 % fewer or more vpdpbusd, fails.
//   3. Where npm run test:arm64 has cross-compiled the addon, the same for udot and spills of the
//      NEON objects.
// Counts belong to one compiler: where another built the addon, or a tool is missing, the gate says
// so and passes. Usage: node bench/gate/gate.mjs [--update], after npm run build:native.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Share by which a count may grow unnoticed: reordered instructions, not another algorithm. */
const TOLERANCE = 0.03;
/** Spills this few come and go with the register allocator. */
const FEW = 8;

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..");
const objects = join(root, "build", "CMakeFiles");
const countsFile = join(here, "counts.json");
/** Objects whose AVX-512 code is counted. */
const STATIC = ["coded_linear", "fused_coded_linear", "linear", "conv2d", "window_attention", "selective_scan", "coded_depthwise_conv"];

/** Objects of build-arm64 with dot products, and the cross compiler's objdump. */
const NEON = ["coded_linear", "linear", "conv2d", "window_attention", "coded_depthwise_conv"];
const neonObjects = join(root, "build-arm64", "CMakeFiles", "spr2q_neon_dotprod.dir", "native", "cpu");
const NEON_COMPILER = "aarch64-linux-gnu-g++";
const NEON_OBJDUMP = "aarch64-linux-gnu-objdump";

const has = (tool) => !spawnSync(tool, ["--version"]).error;
function skip(reason) {
  console.log(`instruction counts skipped: ${reason}`);
  process.exit(0);
}

function compilerPath() {
  const cache = readFileSync(join(root, "build", "CMakeCache.txt"), "utf8");
  return /^CMAKE_CXX_COMPILER:\w+=(.*)$/m.exec(cache)?.[1] ?? "g++";
}

/** Every object of the native half but those that know Node. */
function objectFiles() {
  return readdirSync(objects)
    .filter((name) => name.startsWith("spr2q_"))
    .flatMap((folder) =>
      readdirSync(join(objects, folder), { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".o"))
        .map((name) => join(objects, folder, name)),
    );
}

function instructionCounts(compiler) {
  const folder = mkdtempSync(join(tmpdir(), "spr2q-gate-"));
  try {
    const program = join(folder, "kernels");
    const flags = ["-std=gnu++17", "-O1", join(here, "kernels.cpp"), ...objectFiles()];
    execFileSync(compiler, [...flags, "-lpthread", "-o", program], { stdio: "inherit" });
    const names = execFileSync(program, { encoding: "utf8" }).trim().split("\n");
    const counts = {};
    for (const name of names) {
      const run = spawnSync(
        "valgrind",
        ["--tool=callgrind", "--toggle-collect=*measured*", "--callgrind-out-file=/dev/null", program, name],
        { encoding: "utf8" },
      );
      if (run.status === 3) return "this machine has no AVX2";
      const collected = /Collected : (\d+)/.exec(run.stderr);
      if (run.status !== 0 || !collected || collected[1] === "0") {
        throw new Error(`callgrind on ${name} failed (${run.status}):\n${run.stderr}`);
      }
      counts[name] = Number(collected[1]);
    }
    return counts;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** vpdpbusd, vector loads, and vector stores to the stack, in one object. */
function staticCounts(object) {
  const text = execFileSync("objdump", ["-d", "--no-show-raw-insn", object], {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  const counts = { dpbusd: 0, loads: 0, spills: 0 };
  for (const line of text.split("\n")) {
    const found = /^\s*[0-9a-f]+:\s+(?:\{\w+\}\s+)?(v\w+)\s+(.*)$/.exec(line);
    if (!found) continue;
    const [, op, operands] = found;
    if (op === "vpdpbusd") counts.dpbusd++;
    const target = operands.replace(/\{[^}]*\}/g, "").split(",").at(-1).trim();
    const toMemory = /\)$/.test(target);
    if (toMemory && /%[zyx]mm/.test(operands) && /\(%r[sb]p/.test(operands)) counts.spills++;
    else if (!toMemory && /\(/.test(operands) && /%[zyx]mm/.test(operands)) counts.loads++;
  }
  return counts;
}

/** udot, and vector stores to the stack, in one object for ARM. */
function neonCounts(object) {
  const text = execFileSync(NEON_OBJDUMP, ["-d", object], { encoding: "utf8", maxBuffer: 2 ** 28 });
  const count = (pattern) => text.match(pattern)?.length ?? 0;
  return { udot: count(/\tudot\t/g), spills: count(/\tst[rp]\tq\d+,.*\[sp/g) };
}

const versionOf = (compiler) =>
  execFileSync(compiler, ["-dumpfullversion", "-dumpversion"], { encoding: "utf8" }).trim();

/** Counts by object, or why there are none. */
function measureNeon() {
  if (!existsSync(join(neonObjects, "linear.cpp.o"))) return "no build-arm64/ (npm run test:arm64)";
  for (const tool of [NEON_OBJDUMP, NEON_COMPILER]) if (!has(tool)) return `${tool} is not installed`;
  const counts = NEON.map((name) => [name, neonCounts(join(neonObjects, `${name}.cpp.o`))]);
  return { compiler: versionOf(NEON_COMPILER), ...Object.fromEntries(counts) };
}

function measure() {
  const compiler = compilerPath();
  const version = versionOf(compiler);
  const avx512 = join(objects, "spr2q_avx512.dir", "native", "cpu");
  const fixed = {};
  for (const name of existsSync(avx512) ? STATIC : []) {
    fixed[name] = staticCounts(join(avx512, `${name}.cpp.o`));
  }
  return { compiler: version, instructions: () => instructionCounts(compiler), avx512: fixed };
}

/** Complaints about one count; `both` also minds a fall. */
function compare(what, now, then, both = false) {
  const slack = Math.max(then * TOLERANCE, what.endsWith("spills") ? FEW : 0);
  const change = then ? `${(100 * (now / then - 1)).toFixed(1)} %` : `from ${then}`;
  console.log(`${what.padEnd(46)}${String(now).padStart(12)}  was ${String(then).padStart(12)}  ${change}`);
  return now > then + slack || (both && now < then - slack) ? [`${what}: ${then} -> ${now}`] : [];
}

if (process.platform !== "linux" || process.arch !== "x64") skip("they are kept for Linux on x64");
if (!existsSync(join(root, "build", "CMakeCache.txt"))) skip("no build/ (npm run build:native)");
if (!has("objdump")) skip("objdump is not installed");
const now = measure();
const update = process.argv.includes("--update");
const then = existsSync(countsFile) ? JSON.parse(readFileSync(countsFile, "utf8")) : null;
if (!update && !then) skip("counts.json is not there");
if (!update && then.compiler !== now.compiler) {
  skip(`counted for compiler ${then.compiler}, the addon was built by ${now.compiler}`);
}
let instructions = "valgrind is not installed";
if (has("valgrind")) instructions = now.instructions();
if (update) {
  if (typeof instructions === "string") throw new Error(`cannot update: ${instructions}`);
  const neon = measureNeon();
  if (typeof neon === "string") throw new Error(`cannot update: ${neon}`);
  const counts = { compiler: now.compiler, instructions, avx512: now.avx512, neon };
  writeFileSync(countsFile, `${JSON.stringify(counts, null, 2)}\n`);
  console.log(`${countsFile} written`);
  process.exit(0);
}
const complaints = [];
if (typeof instructions === "string") console.log(`callgrind skipped: ${instructions}`);
else {
  for (const [name, count] of Object.entries(then.instructions)) {
    complaints.push(...compare(`${name}, AVX2 instructions`, instructions[name] ?? Number.NaN, count));
    if (!(name in instructions)) complaints.push(`${name} is gone`);
  }
}
for (const [name, counts] of Object.entries(then.avx512)) {
  for (const [kind, count] of Object.entries(counts)) {
    complaints.push(...compare(`${name}, AVX-512 ${kind}`, now.avx512[name]?.[kind] ?? 0, count, kind === "dpbusd"));
  }
}
const neon = measureNeon();
if (typeof neon === "string") console.log(`NEON skipped: ${neon}`);
else if (neon.compiler !== then.neon.compiler) {
  console.log(`NEON skipped: counted for compiler ${then.neon.compiler}, built by ${neon.compiler}`);
} else {
  for (const name of NEON) {
    for (const [kind, count] of Object.entries(then.neon[name])) {
      complaints.push(...compare(`${name}, NEON ${kind}`, neon[name][kind], count, kind === "udot"));
    }
  }
}
if (complaints.length) {
  console.log(`beyond ${100 * TOLERANCE} %:\n  ${complaints.join("\n  ")}`);
  console.log("If that is meant: node bench/gate/gate.mjs --update, and say why in the commit.");
  process.exit(1);
}
