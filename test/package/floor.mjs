// node test/package/floor.mjs N: fails where a Linux binary under prebuilds/ needs a glibc newer than 2.N.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { glibcOf, readLibrary } from "./elf.mjs";

const prebuilds = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "prebuilds");
const floor = Number(process.argv[2]);
if (!Number.isInteger(floor)) throw new Error("which glibc? For example: floor.mjs 28");
const files = readdirSync(prebuilds, { recursive: true }).filter((name) =>
  /^linux-.*\.(node|so)$/.test(name),
);
if (files.length === 0) throw new Error("no Linux binary is under prebuilds/");
for (const name of files) {
  const needed = glibcOf(readLibrary(readFileSync(join(prebuilds, name))));
  console.log(`${name}: glibc 2.${needed}`);
  if (needed > floor) process.exitCode = 1;
}
