/**
 * Throughput of `spr2q serve`: a server process with one model, and clients that post one picture
 * again and again. Prints images/s, latencies and the server's event loop delay as one JSON object.
 *
 *   node bench/serve.mjs [--model FILE] [--picture PNG] [--clients 4] [--seconds 10]
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    model: { type: "string", default: join(root, "assets", "model", "mambairv2-light-x2-w4.safetensors") },
    picture: { type: "string", default: join(root, "assets", "images", "harbour.png") },
    clients: { type: "string", default: "4" },
    seconds: { type: "string", default: "10" },
  },
});

const program = join(root, "dist", "lib", "cli", "main.js");
const server = spawn(process.execPath, [program, "serve", "--port", "0", "--model", values.model]);
const url = await new Promise((resolve, reject) => {
  let text = "";
  server.stdout.on("data", (bytes) => {
    text += bytes;
    const found = /listening on (\S+)/.exec(text);
    if (found) resolve(found[1]);
  });
  server.once("exit", () => reject(new Error(text)));
});

const picture = readFileSync(values.picture);
const times = [];
async function client(until) {
  do {
    const began = performance.now();
    const response = await fetch(`${url}/upscale`, { method: "POST", body: picture });
    if (response.status !== 200) throw new Error(`status ${response.status}`);
    await response.arrayBuffer();
    times.push(performance.now() - began);
  } while (performance.now() < until);
}

/** A value of GET /metrics, which also starts the event loop's account anew. */
async function metric(name) {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)?.[1]);
}

await client(0); // warm
await metric("nodejs_eventloop_delay_p99_seconds");
times.length = 0;
const began = performance.now();
const until = began + 1000 * Number(values.seconds);
await Promise.all(Array.from({ length: Number(values.clients) }, () => client(until)));
const seconds = (performance.now() - began) / 1000;
const delay = await metric("nodejs_eventloop_delay_p99_seconds");
const memory = await metric("process_resident_memory_bytes");
server.kill("SIGTERM");

times.sort((a, b) => a - b);
const at = (share) => Math.round(times[Math.floor(share * (times.length - 1))]);
console.log(
  JSON.stringify({
    clients: Number(values.clients),
    imagesPerSecond: Number((times.length / seconds).toFixed(1)),
    milliseconds: { p50: at(0.5), p99: at(0.99) },
    eventLoopDelayP99Ms: Number((1000 * delay).toFixed(1)),
    residentMiB: Math.round(memory / 2 ** 20),
  }),
);
