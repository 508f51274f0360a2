// Machine-code gate of the CUDA kernels, for machines without a GPU: compiles every file of
// native/cuda for sm_89 and sm_90 and counts, for each kernel, what decides its speed:
//   imma, bmma   tensor-core products of integers and of bits       must stay as they are
//   mufu         special-function results (exp2, reciprocal, root)  may not grow
//   fp64         double-precision arithmetic                        may not grow
//   local        loads and stores of local memory                   may not grow
//   calls        calls of subroutines (emulated products, divisions) may not grow
//   spills       bytes that ptxas spilled                           may not grow
//   registers    of a thread                                        may grow by SLACK
// The counts of one compiler belong to it: where another nvcc is installed, or none, the gate says
// so and passes. The decoder needs no NVIDIA tool: a cubin is an ELF file with one .text section a
// kernel, an instruction is 16 bytes, and its low 12 bits are the opcode.
// Usage: node bench/gate/sass.mjs [--update]
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ARCHITECTURES = ["89", "90"];
/** Registers by which a kernel may grow unnoticed. */
const SLACK = 8;
/** Subroutine calls and special functions come and go with the compiler's inlining by this share. */
const SHARE = 0.1;
const OPCODES = {
  imma: [0x237],
  bmma: [0x23d],
  mufu: [0x308],
  fp64: [0x229, 0x228, 0x22b, 0x429, 0x428, 0x42b, 0x629, 0x628, 0x62b], // DADD, DMUL, DFMA
  local: [0x983, 0x387], // LDL, STL
  calls: [0x943, 0x944],
};
const EXACT = ["imma", "bmma"];

const here = dirname(fileURLToPath(import.meta.url));
const sources = join(here, "..", "..", "native", "cuda");
const countsFile = join(here, "sass.json");

function skip(reason) {
  console.log(`machine-code gate skipped: ${reason}`);
  process.exit(0);
}

/** Sections of an ELF file of 64 bits, little-endian: name -> contents. */
function sections(file) {
  const at = Number(file.readBigUInt64LE(0x28));
  const size = file.readUInt16LE(0x3a);
  const count = file.readUInt16LE(0x3c);
  const header = (i) => {
    const base = at + i * size;
    return {
      name: file.readUInt32LE(base),
      type: file.readUInt32LE(base + 4),
      offset: Number(file.readBigUInt64LE(base + 24)),
      bytes: Number(file.readBigUInt64LE(base + 32)),
    };
  };
  const names = header(file.readUInt16LE(0x3e));
  const result = new Map();
  for (let i = 0; i < count; i++) {
    const { name, offset, bytes } = header(i);
    const end = file.indexOf(0, names.offset + name);
    const text = file.toString("latin1", names.offset + name, end);
    result.set(text, file.subarray(offset, offset + bytes));
  }
  return result;
}

/**
 * The names and template numbers in a mangled symbol, without the namespaces and the part that
 * nvcc derives from the file's path: "coded_kernel 4 6 Product".
 */
function readable(symbol) {
  const words = [];
  for (let i = 0; i < symbol.length; ) {
    const repeated = /^S[0-9A-Z]*_/.exec(symbol.slice(i)); // a part that was named before
    const name = /^\d+/.exec(symbol.slice(i));
    const literal = /^L[a-z](n?\d+)E/.exec(symbol.slice(i));
    if (repeated) {
      i += repeated[0].length;
    } else if (literal) {
      words.push(literal[1]);
      i += literal[0].length;
    } else if (name) {
      const start = i + name[0].length;
      words.push(symbol.slice(start, start + Number(name[0])));
      i = start + Number(name[0]);
    } else {
      i++;
    }
  }
  const outer = /^(spr2q|cuda|_GLOBAL__N_.*)$/;
  return words.filter((word) => !outer.test(word)).join(" ");
}

function countsOf(code) {
  const counts = Object.fromEntries(Object.keys(OPCODES).map((kind) => [kind, 0]));
  for (let at = 0; at + 16 <= code.length; at += 16) {
    const opcode = code.readUInt16LE(at) & 0xfff;
    for (const [kind, codes] of Object.entries(OPCODES)) {
      if (codes.includes(opcode)) counts[kind]++;
    }
  }
  return counts;
}

/** Spilled bytes and registers of each kernel, from what `ptxas -v` prints. */
function ptxasFacts(log) {
  const facts = new Map();
  for (const part of log.split("Compiling entry function ").slice(1)) {
    const symbol = /^'([^']+)'/.exec(part)?.[1] ?? "";
    const [, stores, loads] = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(part) ?? [];
    const registers = /Used (\d+) registers/.exec(part)?.[1];
    facts.set(symbol, { spills: Number(stores) + Number(loads), registers: Number(registers) });
  }
  return facts;
}

function compile(file, architecture, output) {
  const flags = ["-std=c++17", "-fmad=false", `-arch=sm_${architecture}`, "-Xptxas", "-v", "-cubin"];
  return new Promise((done, fail) => {
    const run = spawn("nvcc", [...flags, join(sources, file), "-o", output]);
    let log = "";
    run.stdout.on("data", (text) => (log += text));
    run.stderr.on("data", (text) => (log += text));
    run.on("error", fail);
    run.on("close", (status) => {
      if (status === 0) done(log);
      else fail(new Error(`nvcc on ${file} for sm_${architecture} failed:\n${log}`));
    });
  });
}

async function measure() {
  const folder = mkdtempSync(join(tmpdir(), "spr2q-sass-"));
  const result = {};
  const jobs = ARCHITECTURES.flatMap((architecture) =>
    readdirSync(sources)
      .filter((name) => name.endsWith(".cu"))
      .map((file) => ({ architecture, file })),
  );
  const work = async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) {
      const { architecture, file } = job;
      const output = join(folder, `${file}.${architecture}.cubin`);
      const facts = ptxasFacts(await compile(file, architecture, output));
      for (const [name, code] of sections(readFileSync(output))) {
        const symbol = name.startsWith(".text.") ? name.slice(6) : "";
        if (!facts.has(symbol)) continue;
        const key = `sm_${architecture} ${file.replace(".cu", "")}: ${readable(symbol)}`;
        if (key in result) throw new Error(`two kernels are called ${key}`);
        result[key] = { ...countsOf(code), ...facts.get(symbol) };
      }
    }
  };
  try {
    await Promise.all([work(), work()]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return Object.fromEntries(Object.entries(result).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Why a count is no longer what it was, or nothing. */
function complaint(kind, now, then) {
  if (EXACT.includes(kind)) return now !== then;
  if (kind === "registers") return now > then + SLACK;
  if (kind === "calls" || kind === "mufu") return now > then + Math.max(2, then * SHARE);
  return now > then;
}

const versionText = spawnSync("nvcc", ["--version"], { encoding: "utf8" });
if (versionText.error) skip("nvcc is not installed");
const compiler = /V(\d+\.\d+\.\d+)/.exec(versionText.stdout)?.[1] ?? "unknown";
const update = process.argv.includes("--update");
const kept = existsSync(countsFile) ? JSON.parse(readFileSync(countsFile, "utf8")) : null;
if (!update && !kept) skip("sass.json is not there");
if (!update && kept.compiler !== compiler) {
  skip(`counted for nvcc ${kept.compiler}, installed is ${compiler}`);
}
const now = await measure();
if (update) {
  const lines = Object.entries(now).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  const text = `{"compiler": ${JSON.stringify(compiler)}, "kernels": {\n${lines.join(",\n")}\n}}\n`;
  writeFileSync(countsFile, text);
  console.log(`${countsFile} written: ${lines.length} kernels`);
  process.exit(0);
}
const complaints = [];
for (const [key, then] of Object.entries(kept.kernels)) {
  if (!(key in now)) complaints.push(`${key} is gone`);
  for (const [kind, count] of Object.entries(now[key] ?? {})) {
    if (complaint(kind, count, then[kind])) {
      complaints.push(`${key}: ${kind} ${then[kind]} -> ${count}`);
    }
  }
}
for (const key of Object.keys(now)) if (!(key in kept.kernels)) complaints.push(`${key} is new`);
const total = (kind) => Object.values(now).reduce((sum, counts) => sum + counts[kind], 0);
console.log(
  `${Object.keys(now).length} kernels, nvcc ${compiler}: ` +
    [...Object.keys(OPCODES), "spills"].map((kind) => `${kind} ${total(kind)}`).join(", "),
);
if (complaints.length) {
  console.log(complaints.map((line) => `  ${line}`).join("\n"));
  console.log("If that is meant: node bench/gate/sass.mjs --update, and say why in the commit.");
  process.exit(1);
}
console.log("machine code as counted");
