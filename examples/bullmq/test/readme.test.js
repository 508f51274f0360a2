/** What the project's README says about the queue, word for word, but for Redis' port and the store. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { decodePng } from "spr2q";
import { expect, onTestFinished, test } from "vitest";
import { hasRedis, startRedis } from "./redis.js";

const present = hasRedis();
if (!present) console.log("skipped: redis-server is not installed");

const folder = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(folder, "..", "..", "README.md"), "utf8");

test.skipIf(!present)(
  "the README's queue: a worker, and a producer that prints the path",
  async () => {
    const section = readme.split("### As a queue")[1];
    const block = /```sh\n([\s\S]*?)```/.exec(section)[1];
    const redis = await startRedis();
    const place = mkdtempSync(join(tmpdir(), "spr2q-readme-"));
    onTestFinished(async () => {
      await redis.stop();
      rmSync(place, { recursive: true, force: true });
    });
    const lines = block
      .replaceAll("redis://127.0.0.1:6379", redis.url)
      .replaceAll("/tmp/store", join(place, "store"))
      .trim()
      .split("\n");
    expect(lines.shift()).toBe("cd examples/bullmq && npm install"); // run.mjs has done that
    const script = `${lines.join("\n")}\nkill %1\nwait\n`;
    const child = spawn("bash", ["-e", "-m", "-c", script], { cwd: folder });
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (bytes) => {
      stdout += bytes;
    });
    child.stderr.on("data", (bytes) => {
      stderr += bytes;
    });
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect([code, stderr]).toEqual([0, expect.stringContaining("100 %")]);
    const path = stdout.split("\n").find((line) => line.endsWith(".png"));
    const large = decodePng(readFileSync(path), path);
    const root = dirname(createRequire(import.meta.url).resolve("spr2q/package.json"));
    const small = readFileSync(join(root, "assets", "images", "harbour.png"));
    expect(large.width).toBe(2 * decodePng(small, "harbour.png").width);
  },
);
