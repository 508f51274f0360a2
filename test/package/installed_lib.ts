/** Vitest on an installed package: every import of lib/X.ts becomes that of its dist/lib/X.js. */
import { existsSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vitest/config";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..", "..");
const sources = join(root, "lib") + sep;

/** Where `node test/package/run.mjs --prepare` leaves it. */
export const preparedPackage: string = join(root, "build-package", "app", "node_modules", "spr2q");

/** For a config's `plugins`; `home` is the package's folder, somewhere below a node_modules. */
export function installedLib(home: string): Plugin {
  const compiled = join(resolve(home), "dist", "lib");
  if (!existsSync(compiled)) throw new Error(`there is no installed package at ${home}`);
  return {
    name: "spr2q-installed",
    enforce: "pre",
    resolveId(source, importer) {
      if (!source.startsWith(".") || !importer) return null;
      const path = resolve(dirname(importer), source);
      if (!path.startsWith(sources)) return null;
      return join(compiled, relative(sources, path).replace(/\.ts$/, ".js"));
    },
  };
}
