/**
 * The Windows binary under Wine: quantising and enlarging give the bytes that Linux gives. run.mjs
 * leaves a node.exe in build-win32-x64 where Wine is installed.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { app, installed, node } from "./installed.ts";

const windowsNode = join(packageRoot(), "build-win32-x64", "node.exe");
const binary = join(installed, "prebuilds", "win32-x64", "spr2q.node");
const present = existsSync(windowsNode) && existsSync(binary);
if (!present) console.log("win32-x64 is not run: no node.exe and binary for Wine");

const program = join("node_modules", "spr2q", "dist", "lib", "cli", "main.js");
const assets = join("node_modules", "spr2q", "assets");
/** Wine's own folder, outside of the project: one of its links leads to the root of this machine. */
const place = present ? mkdtempSync(join(tmpdir(), "spr2q-wine-")) : "";
const LOG = join(place, "log");

/** Runs Node for Windows in the application's folder; its text. Wine's Node wants files for streams. */
async function windows(args: readonly string[]): Promise<string> {
  const log = openSync(LOG, "w");
  const settings = { WINEPREFIX: join(place, "prefix"), WINEDEBUG: "-all" };
  const env = { ...process.env, ...settings, NODE_SKIP_PLATFORM_CHECK: "1", PREBUILDS_ONLY: "1" };
  const stdin = openSync("/dev/null", "r");
  const child = spawn("wine", [windowsNode, ...args], {
    cwd: app,
    env,
    stdio: [stdin, log, log],
    timeout: 120_000,
  });
  const [code] = await once(child, "exit");
  for (const file of [log, stdin]) closeSync(file);
  const text = readFileSync(LOG, "utf8");
  if (code !== 0) throw new Error(`node.exe ended with ${code}: ${text}`);
  return text;
}

const bytes = (name: string): Buffer => readFileSync(join(app, name));

describe.skipIf(!present)("under Wine", () => {
  beforeAll(async () => {
    for (const name of ["windows", "linux"])
      await rm(join(app, name), { recursive: true, force: true });
  });

  afterAll(() => rm(place, { recursive: true, force: true, maxRetries: 5, retryDelay: 1000 }));

  test("the addon that runs is the prebuilt one, with a fast instruction set", async () => {
    const text = await windows([program, "doctor"]);
    expect(text).toMatch(/System +win32/);
    expect(text).toMatch(/Instructions +avx/);
  });

  test("demo quantises to the bytes that Linux gives", async () => {
    const words = [program, "demo", "--iterations", "2", "--quiet", "--out"];
    await windows([...words, "windows"]);
    await node([...words, "linux"]);
    const model = (folder: string): Buffer => bytes(join(folder, "model.safetensors"));
    expect(model("windows").equals(model("linux"))).toBe(true);
  });

  test.each(["mambairv2-light-x2", "mambairv2-light-x2-w4", "mambairv2-light-x4-w4"])(
    "%s enlarges to the bytes that Linux gives",
    async (name) => {
      const model = join(assets, "model", `${name}.safetensors`);
      const words = [program, "upscale", join(assets, "images", "wall.png"), "--model", model];
      await windows([...words, "-o", join("windows", `${name}.png`)]);
      await node([...words, "-o", join("linux", `${name}.png`)]);
      const large = (folder: string): Buffer => bytes(join(folder, `${name}.png`));
      expect(large("windows").equals(large("linux"))).toBe(true);
    },
  );

  test("workers that are terminated, and process.exit, in the middle of a job end cleanly", async () => {
    const script = `
      const { Worker } = require("node:worker_threads");
      const job = \`
        require("spr2q").Upscaler.load("${join(assets, "model", "mambairv2-light-x2.safetensors")}").then((up) => {
          const [width, height] = [300, 300];
          up.run({ width, height, channels: 3, depth: 8, data: new Uint8Array(width * height * 3) });
          require("node:worker_threads").parentPort.postMessage("running");
        });\`;
      const next = () => new Promise((resolve) => {
        const worker = new Worker(job, { eval: true });
        worker.once("message", () => resolve(worker));
      });
      (async () => {
        for (let i = 0; i < 10; i++) await (await next()).terminate();
        await next();
        console.log("ten were terminated");
        process.exit(0);
      })();`;
    expect(await windows(["-e", script])).toContain("ten were terminated");
  });
});
