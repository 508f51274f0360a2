/** `spr2q build`: compiles the addon of the installed package, for machines without a prebuilt one. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { packageRoot } from "../../binding.ts";
import { expected, Spr2qError } from "../../errors.ts";
import { defineCommand } from "../args.ts";

/** Folders in which Node's headers may lie, likeliest first. */
function headerFolders(given: string | undefined): string[] {
  if (given !== undefined) return [given];
  const folders = [join(dirname(dirname(process.execPath)), "include", "node")];
  for (const base of [packageRoot(), process.cwd()]) {
    try {
      const require = createRequire(join(base, "package.json"));
      folders.push(require("node-api-headers").include_dir as string);
    } catch {
      // not installed there
    }
  }
  return [...folders, "/usr/include/node", "/usr/local/include/node"];
}

/** The folder of node_api.h. ERR_IO where it is nowhere. */
function findHeaders(given: string | undefined): string {
  const folders = headerFolders(given);
  const found = folders.find((folder) => existsSync(join(folder, "node_api.h")));
  if (found) return found;
  const fix = "Run: npm install node-api-headers, or name their folder with --headers.";
  throw expected("ERR_IO", "Node's headers", "node_api.h", `none in ${folders.join(", ")}`, fix);
}

/** Runs a program; its output goes to `lines`. ERR_IO where it is missing or fails. */
function run(
  program: string,
  args: readonly string[],
  signal: AbortSignal,
  lines: (text: string) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { signal, stdio: ["ignore", "pipe", "pipe"] });
    const last: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        last.push(text);
        if (last.length > 200) last.shift();
        lines(text);
      });
    }
    child.on("error", (cause: NodeJS.ErrnoException) => {
      const missing = "Install CMake 3.20 or newer, make and a C++17 compiler.";
      if (cause.code !== "ENOENT") return reject(cause);
      reject(expected("ERR_IO", program, "a program on the PATH", "none", missing));
    });
    child.on("close", (code) => {
      if (code === 0) return resolve();
      const text = last.join("").slice(-3000);
      reject(new Spr2qError("ERR_IO", `${program} ended with ${code}:\n${text}`));
    });
  });
}

export const command = defineCommand({
  name: "build",
  summary: "compile the native addon where no prebuilt one fits",
  usage: "[--headers DIR] [--jobs N]",
  options: [
    {
      name: "headers",
      type: "string",
      value: "DIR",
      help: "folder of node_api.h (default: those of this Node, or the package node-api-headers)",
    },
    {
      name: "jobs",
      type: "integer",
      min: 1,
      max: 256,
      help: "compilers at once (default: one a core)",
    },
  ],
  async run(ctx) {
    const { options, signal, progress } = ctx;
    if (process.platform === "win32") {
      const fix = "Use the prebuilt addon, or WSL.";
      throw expected("ERR_ARGUMENT", "platform", "Linux or macOS", "Windows", fix);
    }
    const headers = findHeaders(options.headers);
    const root = packageRoot();
    const build = join(root, "build");
    const began = performance.now();
    let done = 0;
    const lines = (text: string): void => {
      const share = /\[\s*(\d+)%\]|\[(\d+)\/(\d+)\]/.exec(text);
      if (share) done = share[1] ? Number(share[1]) : Math.round((100 * +share[2]) / +share[3]);
      progress.update({ label: "building", done, total: 100 });
    };
    const output = join(build, "Release");
    const defines = [
      "-DCMAKE_BUILD_TYPE=Release",
      `-DCMAKE_JS_INC=${headers}`,
      `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${output}`,
    ];
    const jobs = `${options.jobs ?? availableParallelism()}`;
    await run("cmake", ["-S", root, "-B", build, ...defines], signal, lines);
    await run("cmake", ["--build", build, "--parallel", jobs], signal, lines);
    progress.finish();
    const seconds = (performance.now() - began) / 1000;
    const addon = `${output}/spr2q.node`;
    ctx.out(`${addon}: built in ${seconds.toFixed(0)} s`);
    ctx.result({ addon, headers, seconds });
  },
});
