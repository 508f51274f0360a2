/** The installed package that run.mjs leaves, and Node on it where nothing else is to be found. */
import { execFile } from "node:child_process";
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { packageRoot } from "../../lib/binding.ts";

/** Everything that tests of the package write lies here. */
export const place = join(packageRoot(), "build-package");
/** The folder of an application that has the package installed. */
export const app = join(place, "app");
export const installed = join(app, "node_modules", "spr2q");
/** The command line. */
export const program = join(app, "node_modules", ".bin", "spr2q");

/** A folder for PATH with Node in it and nothing else. */
export const bare = join(place, "bare");
rmSync(bare, { recursive: true, force: true });
mkdirSync(bare);
symlinkSync(process.execPath, join(bare, "node"));

/** The environment in which nothing is on the path and the addon can only be the prebuilt one. */
export const environment: NodeJS.ProcessEnv = { PATH: bare, PREBUILDS_ONLY: "1", HOME: place };

/** Runs Node in the application's folder. */
export function node(
  args: readonly string[],
  more: NodeJS.ProcessEnv = {},
  cwd = app,
): Promise<{ stdout: string; stderr: string }> {
  const env = { ...environment, ...more };
  return promisify(execFile)(process.execPath, args as string[], { cwd, env });
}
