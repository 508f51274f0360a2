/** The Fastify example over real connections on loopback. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { decodePng, encodePng, Upscaler } from "spr2q";
import { expect, onTestFinished, test } from "vitest";
import { buildServer } from "../server.js";

const root = dirname(createRequire(import.meta.url).resolve("spr2q/package.json"));
const model = join(root, "assets", "model", "mambairv2-light-x2-w4.safetensors");

/** A PNG of slow waves. */
function png(side) {
  const data = new Uint8Array(side * side * 3);
  for (let i = 0; i < data.length; i++) {
    const [c, x, y] = [i % 3, Math.floor(i / 3) % side, Math.floor(i / 3 / side)];
    data[i] = 128 + 90 * Math.sin(x / 7 + c) * Math.cos(y / 11);
  }
  return encodePng({ width: side, height: side, channels: 3, depth: 8, data });
}

/** The first 33 bytes of a PNG of width x height RGB pixels. */
function head(width, height) {
  const bytes = Buffer.from(
    "89504e470d0a1a0a0000000d49484452000000000000000008020000000000000000",
    "hex",
  );
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  bytes.writeUInt32BE(crc32(bytes.subarray(12, 29)), 29);
  return bytes.subarray(0, 33);
}

async function start(options = {}) {
  const server = await buildServer({ model, ...options });
  const url = await server.listen({ host: "127.0.0.1", port: 0 });
  onTestFinished(() => server.close());
  const post = (body, init = {}) =>
    fetch(`${url}/upscale`, {
      method: "POST",
      body,
      headers: { "Content-Type": "image/png" },
      ...init,
    });
  const health = async () => (await fetch(`${url}/health`)).json();
  return { url, post, health };
}

const fault = async (response) => [response.status, (await response.json()).error.code];

/** Tiles so small that an image of 400x400 pixels takes seconds. */
const slow = { upscaler: { tile: 16 } };

test("an image in, the pixels that the library gives out, as a stream", async () => {
  const { post } = await start();
  const response = await post(png(60));
  expect(response.headers.get("content-type")).toBe("image/png");
  const upscaler = await Upscaler.load(model);
  const wanted = await upscaler.run(decodePng(png(60), "image"));
  upscaler.dispose();
  expect(decodePng(new Uint8Array(await response.arrayBuffer()), "answer")).toEqual(wanted);
});

test("the first rows come while the last are not made yet", async () => {
  const { post, health } = await start(slow);
  const { data } = decodePng(png(400), "noise");
  for (let i = 0; i < data.length; i++) data[i] = (i * 2654435761) >>> 24; // deflates badly
  const noise = encodePng({ width: 400, height: 400, channels: 3, depth: 8, data });
  const response = await post(noise);
  const reader = response.body.getReader();
  expect((await reader.read()).value.length).toBeGreaterThan(0);
  const { running, queued, finished } = await health();
  expect([running + queued, finished]).toEqual([1, 0]);
  await reader.cancel();
});

test("limits: bytes while they come, pixels by the header, both before decoding", async () => {
  const { post } = await start({ maxBytes: 5000, maxPixels: 1000 });
  expect((await post(Buffer.alloc(6000))).status).toBe(413);
  expect(await fault(await post(head(8_000, 8_000)))).toEqual([413, "ERR_IMAGE"]);
  expect((await post(png(30))).status).toBe(200);
});

test("what is no image, damaged or of another type has its status and code", async () => {
  const { post } = await start();
  expect(await fault(await post("hello"))).toEqual([400, "ERR_IMAGE"]);
  expect(await fault(await post(png(40).slice(0, 300)))).toEqual([400, "ERR_IMAGE"]);
  const text = await post("hello", { headers: { "Content-Type": "application/x-thing" } });
  expect(text.status).toBe(415);
});

test("a full queue is 429 with Retry-After, and a client that leaves makes room", async () => {
  const { post, health } = await start({ ...slow, maxQueued: 1 });
  const controllers = [new AbortController(), new AbortController()];
  const asked = controllers.map(({ signal }) => post(png(400), { signal }).catch(() => "left"));
  await expect.poll(async () => (await health()).queued, { timeout: 20_000 }).toBe(1);
  const refused = await post(png(16));
  expect(refused.headers.get("retry-after")).toBe("1");
  expect(await fault(refused)).toEqual([429, "ERR_BUSY"]);
  for (const controller of controllers) controller.abort();
  for (const outcome of await Promise.all(asked)) {
    if (outcome !== "left") await expect(outcome.arrayBuffer()).rejects.toThrow();
  }
  const busy = async () => (await health()).running + (await health()).queued;
  await expect.poll(busy, { timeout: 20_000 }).toBe(0);
  expect((await health()).finished).toBe(0);
  expect((await post(png(16))).status).toBe(200);
});
