/** The installed package that run.mjs leaves, and Node on it where nothing else is to be found. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { onTestFinished } from "vitest";
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

/** `spr2q serve` of the installed package, once it listens: where, and how it ends. */
export interface Serving {
  readonly url: string;
  readonly child: ChildProcess;
  /** Exit code and signal. */
  readonly exited: Promise<unknown[]>;
}

/**
 * Starts `spr2q serve` with `words` on a free port; it ends with the test. Rejects with all that it
 * printed where it ends before it listens.
 */
export async function startServer(words: readonly string[] = []): Promise<Serving> {
  const argv = [program, "serve", ...words, "--port", "0"];
  const child = spawn(process.execPath, argv, { cwd: app, env: environment });
  onTestFinished(() => void child.kill("SIGKILL"));
  const exited = once(child, "exit");
  let text = "";
  const url = await new Promise<string>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (part: string) => {
        text += part;
        const line = /^listening on (\S+)$/m.exec(text.slice(0, text.lastIndexOf("\n") + 1));
        if (line) resolve(line[1]);
      });
    }
    exited.then(() => reject(new Error(`serve ended: ${text}`)), reject);
  });
  return { url, child, exited };
}
