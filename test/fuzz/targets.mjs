// Compiles the targets with the sources that they import, and instruments the readers of files and
// pngjs: out/fuzz. Returns the number of counters.
import { execFileSync } from "node:child_process";
import { cpSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { instrument } from "./instrument.mjs";

const INSTRUMENTED = ["lib/io", "lib/infer", "node_modules/pngjs/lib"];

export function buildTargets(root) {
  const out = join(root, "out", "fuzz");
  rmSync(out, { recursive: true, force: true });
  execFileSync(
    process.execPath,
    [join(root, "node_modules/typescript/bin/tsc"), "-p", join(root, "test/fuzz")],
    { stdio: "inherit" },
  );
  // A pngjs of its own, so that its counters are not in the installed one.
  cpSync(join(root, "node_modules", "pngjs"), join(out, "node_modules", "pngjs"), {
    recursive: true,
  });
  writeFileSync(join(out, "package.json"), '{ "type": "module" }\n');
  const files = INSTRUMENTED.flatMap((folder) => {
    try {
      return readdirSync(join(out, folder)).map((name) => join(out, folder, name));
    } catch {
      return []; // no target imports anything of it
    }
  });
  return instrument(files.filter((name) => name.endsWith(".js")).sort());
}
