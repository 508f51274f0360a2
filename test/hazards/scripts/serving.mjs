/**
 * How late the timers of `spr2q serve` are while four clients post pictures for ten seconds. The server
 * is a process of its own, which looks at its own event loop (delay.mjs) and tells when it ends.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { home, modelPath, report, sleep } from "./common.mjs";

const look = pathToFileURL(join(fileURLToPath(import.meta.url), "..", "delay.mjs")).href;
const program = join(home, "dist", "lib", "cli", "main.js");
const words = ["--import", look, program, "serve", "--port", "0", "--model", modelPath];
const server = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit", "ipc"] });
let text = "";
let url;
const listening = new Promise((resolve, reject) => {
  server.stdout.on("data", (bytes) => {
    text += bytes;
    url ??= /listening on (\S+)/.exec(text)?.[1];
    if (url) resolve();
  });
  server.once("exit", (code) => reject(new Error(`serve ended with ${code}: ${text}`)));
});
await listening;

/** What the server's histogram has seen since it was asked last. */
async function delay() {
  const answer = once(server, "message");
  server.send("delay");
  return (await answer)[0];
}

const picture = readFileSync(join(home, "assets", "images", "harbour.png"));
let answers = 0;
async function client(until) {
  do {
    const response = await fetch(`${url}/upscale`, { method: "POST", body: picture });
    if (response.status !== 200) throw new Error(`status ${response.status}`);
    await response.arrayBuffer();
    answers++;
  } while (performance.now() < until);
}

await client(0); // traces and packs once
await delay();
await sleep(3000);
const before = await delay();
answers = 0;
const until = performance.now() + 10_000;
await Promise.all(Array.from({ length: 4 }, () => client(until)));
const busy = await delay();
await sleep(3000);
const after = await delay();
server.kill("SIGTERM");
await once(server, "exit");
report({ idle: { p99: Math.max(before.p99, after.p99) }, busy, answers });
