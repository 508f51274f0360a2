/** The version of this package. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expected } from "../errors.ts";

/** The version in package.json, found upwards from this file (lib/ or dist/lib/). */
export function packageVersion(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (dirname(folder) !== folder) {
    try {
      const meta = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      if (meta.name === "spr2q") return meta.version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    folder = dirname(folder);
  }
  throw expected("ERR_IO", "version", "package.json above this file", "none", "Reinstall spr2q.");
}
