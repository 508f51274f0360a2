// node bench/cuda/pack.mjs OUT.tar.xz --model FILE --train DIR [--packed FILE] [--library FILE] [--fast]
//
// Packs everything that a GPU machine without Node needs for bench/cuda/train.py into one archive: this
// Node, the compiled package with its addon and its two run-time dependencies, the CUDA library
// (npm run build:cuda, or --library), a full-precision model, the folder of training pictures, and
// optionally a quantised model for the time of a frame. --fast leaves it uncompressed (OUT.tar).
// Node and addon run on machines of the same system and processor family as this one.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string" },
    train: { type: "string" },
    packed: { type: "string" },
    library: { type: "string", default: join(root, "build", "Release", "libspr2q_cuda.so") },
    fast: { type: "boolean", default: false },
  },
});

function giveUp(text) {
  console.error(text);
  process.exit(2);
}

/** The path, which must exist. */
function need(path, what, fix) {
  if (path && existsSync(path)) return resolve(path);
  giveUp(`ERR_ARGUMENT: ${what}: expected an existing path, got ${path ?? "none"}. ${fix}`);
}

if (positionals.length !== 1) giveUp("ERR_USAGE: expected one archive to write. See the head of pack.mjs.");
const out = resolve(positionals[0]);
const addon = join(root, "build", "Release", "spr2q.node");
const parts = [
  [process.execPath, "node"],
  [need(join(root, "dist"), "dist", "Build it: npm run build:ts."), "dist"],
  [need(addon, "addon", "Build it: npm run build:native."), "build/Release/spr2q.node"],
  [need(values.library, "--library", "Build it: npm run build:cuda."), "build/Release/libspr2q_cuda.so"],
  [join(root, "package.json"), "package.json"],
  [join(root, "bench", "cuda", "frame.mjs"), "bench/cuda/frame.mjs"],
  [need(values.model, "--model", "Name a full-precision model."), `model/${basename(values.model ?? "")}`],
  [need(values.train, "--train", "Name a folder of PNGs."), "train"],
];
if (values.packed) parts.push([need(values.packed, "--packed", "Name a quantised model."), "packed.safetensors"]);
const require = createRequire(join(root, "package.json"));
for (const name of ["node-gyp-build", "pngjs"]) {
  parts.push([dirname(require.resolve(`${name}/package.json`)), `node_modules/${name}`]);
}

const folder = mkdtempSync(join(tmpdir(), "spr2q-pack-"));
try {
  for (const [from, to] of parts) {
    mkdirSync(dirname(join(folder, to)), { recursive: true });
    cpSync(from, join(folder, to), { recursive: true, dereference: true });
  }
  writeFileSync(join(folder, "model-name"), basename(values.model));
  const tar = spawnSync("tar", [values.fast ? "-cf" : "-cJf", out, "-C", folder, "."], {
    stdio: "inherit",
    env: { ...process.env, XZ_OPT: "-6 -T0" },
  });
  if (tar.status !== 0) giveUp("ERR_IO: tar failed; it needs xz, or --fast.");
  console.log(`${out}: now, on the GPU machine: python3 train.py ${basename(out)}`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
