/**
 * Runs a script of scripts/ in a process of its own. SPR2Q_PACKAGE names the folder of the package
 * under test, an installed one; without it, it is the working tree.
 */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { packageRoot } from "../../lib/binding.ts";

/** How a child ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What the script reported last; undefined where it did not come to that. */
  // biome-ignore lint/suspicious/noExplicitAny: each script reports what it likes.
  readonly result: any;
  readonly stderr: string;
}

/** Runs `script` with `args`; `limit` is the address space in KiB that it may have. */
export function runScript(
  script: string,
  args: readonly string[] = [],
  limit?: number,
): Promise<Ended> {
  const path = fileURLToPath(new URL(`scripts/${script}`, import.meta.url));
  const command = [process.execPath, "--expose-gc", path, ...args];
  const limited = ["/bin/sh", "-c", `ulimit -v ${limit}; exec "$@"`, "sh", ...command];
  const [program, ...words] = limit === undefined ? command : limited;
  const env = { ...process.env, SPR2Q_PACKAGE: process.env.SPR2Q_PACKAGE ?? packageRoot() };
  const child = spawn(program, words, { env, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      const line = stdout.split("\n").findLast((text) => text.startsWith("RESULT "));
      resolve({ code, signal, result: line && JSON.parse(line.slice(7)), stderr });
    });
  });
}

/** The result of a script that must end by itself; its standard error where it does not. */
export async function resultOf(
  script: string,
  args: readonly string[] = [],
  limit?: number,
): Promise<Ended["result"]> {
  const { code, signal, result, stderr } = await runScript(script, args, limit);
  if (code === 0 && result !== undefined) return result;
  throw new Error(`${script} ended with ${signal ?? code}: ${stderr.slice(-2000)}`);
}
