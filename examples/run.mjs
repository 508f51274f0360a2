/**
 * `npm run test:examples`: installs what the examples need, each in its own folder, with the built
 * project linked in (or the packed one: SPR2Q_TARBALL), and runs their tests.
 */
import { execFileSync } from "node:child_process";
import { lstatSync, readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
const tarball = process.env.SPR2Q_TARBALL;
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const quiet = ["--no-package-lock", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"];

const examples = readdirSync(here, { withFileTypes: true }).filter((entry) => entry.isDirectory());
for (const { name } of examples) {
  const run = (...words) =>
    execFileSync(npm, words, { cwd: join(here, name), stdio: ["ignore", "ignore", "inherit"] });
  run("install", ...quiet);
  if (tarball) run("install", "--no-save", ...quiet, resolve(tarball));
  const linked = lstatSync(join(here, name, "node_modules", "spr2q")).isSymbolicLink();
  if (linked === Boolean(tarball))
    throw new Error(`examples/${name} has the wrong spr2q installed`);
  console.log(`${name} on ${tarball ?? "the built project"}`);
}
const words = ["run", "--config", "examples/vitest.config.js", ...process.argv.slice(2)];
execFileSync(join(root, "node_modules", ".bin", "vitest"), words, { cwd: root, stdio: "inherit" });
