// One target under libFuzzer: node drive.mjs TARGET COUNTERS SEEDS [libFuzzer's arguments]. Writes the
// seeds that the target makes to the folder SEEDS first. Started by run.mjs.
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const [name, counters, seeds, ...rest] = process.argv.slice(2);
const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const engine = { exports: {} };
const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
process.dlopen(engine, join(root, "build-fuzz", "engine.node"), RTLD_NOW | RTLD_GLOBAL);
globalThis.fuzz = { counters: engine.exports.counters(Number(counters)), loaded: 0 };
const require = createRequire(import.meta.url);
globalThis.fuzz.require = require;
const target = await import(join(root, "out", "fuzz", "test", "fuzz", "targets", `${name}.js`));
mkdirSync(seeds, { recursive: true });
target.seeds().forEach((seed, i) => {
  writeFileSync(join(seeds, `seed-${i}`), seed);
});
const words = (target.words ?? []).map((word) =>
  [...Buffer.from(word, "latin1")].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`),
);
const dictionary = `${seeds}.dict`;
writeFileSync(dictionary, words.map((word) => `"${word.join("")}"\n`).join(""));
console.error(`INFO: ${globalThis.fuzz.loaded} counters in the modules of this target`);
engine.exports.run([...rest, `-dict=${dictionary}`], (bytes) => {
  target.fuzz(bytes);
});
