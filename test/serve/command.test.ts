/** `spr2q serve` as a process: what it prints, and how it ends. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { writeTinyModel } from "../cli/tiny_model.ts";
import { temporaryFolder } from "../io/helpers.ts";
import { health, pixels, png, post, until } from "./helpers.ts";

async function start(...words: string[]) {
  const model = await writeTinyModel(temporaryFolder());
  const program = join(packageRoot(), "dist", "lib", "cli", "main.js");
  const argv = [program, "serve", "--model", model, "--port", "0", ...words];
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (bytes) => {
      text += bytes;
    });
  }
  const exited = once(child, "exit");
  await until(() => text.includes("listening on ") || child.exitCode !== null);
  const url = /listening on (\S+)/.exec(text)?.[1] ?? "";
  return { child, url, exited, text: () => text };
}

test("SIGTERM: the image at work is finished, new ones get 503, exit code 0", async () => {
  const { child, url, exited, text } = await start("--tile", "16");
  const first = post(url, png(250));
  await until(async () => (await health(url)).running === 1);
  child.kill("SIGTERM");
  await until(async () => (await fetch(`${url}/health`)).status === 503);
  expect((await post(url, png(8))).status).toBe(503);
  expect((await pixels(await first)).width).toBe(500);
  expect(await exited).toEqual([0, null]);
  expect(text()).toMatch(/model tiny {2}x2 {2}32 bit/);
  expect(text()).toMatch(/POST \/upscale {2}200 {2}tiny {2}250x250/);
  expect(text()).toMatch(/POST \/upscale {2}503 .*ERR_CLOSING/);
});

test("an idle server ends at once by Ctrl-C, also with connections kept open", async () => {
  const { child, url, exited } = await start();
  await (await fetch(`${url}/health`)).json();
  child.kill("SIGINT");
  expect(await exited).toEqual([0, null]);
});

test("a port in use is told, exit code 1", async () => {
  const { url } = await start();
  const { exited, text } = await start("--port", new URL(url).port);
  expect(await exited).toEqual([1, null]);
  expect(text()).toContain("ERR_IO");
});
