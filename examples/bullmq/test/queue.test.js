/** The queue against a real Redis, with workers as processes of their own, one of them killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { decodePng, encodePng, Upscaler } from "spr2q";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hashFile, jobFiles } from "../jobs.js";
import { Producer } from "../producer.js";
import { hasRedis, startRedis } from "./redis.js";

const present = hasRedis();
if (!present) console.log("skipped: redis-server is not installed");

const LOCK_MS = 2_000;
/** Tiles so small that the larger image takes seconds, with many points at which it can be stopped. */
const TILE = 16;
const root = dirname(createRequire(import.meta.url).resolve("spr2q/package.json"));
const model = join(root, "assets", "model", "mambairv2-light-x2-w4.safetensors");

/** A PNG of slow waves; another `phase` is another image. */
function png(width, height, phase = 0) {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const [c, x, y] = [i % 3, Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    data[i] = 128 + 90 * Math.sin(x / 7 + c + phase) * Math.cos(y / 11);
  }
  return encodePng({ width, height, channels: 3, depth: 8, data });
}

describe.skipIf(!present)("the queue", { timeout: 120_000 }, () => {
  let redis;
  let store;
  let producer;
  let modelHash;
  const workers = new Set();

  beforeAll(async () => {
    modelHash = await hashFile(model);
  });
  beforeEach(async () => {
    redis = await startRedis();
    store = mkdtempSync(join(tmpdir(), "spr2q-store-"));
    producer = new Producer({ url: redis.url, store });
    await producer.events.waitUntilReady();
  });
  afterEach(async () => {
    for (const { child } of workers) child.kill("SIGKILL");
    workers.clear();
    await producer.close();
    await redis.stop();
    rmSync(store, { recursive: true, force: true });
  });
  afterAll(() => expect(workers.size).toBe(0));

  async function startWorker() {
    const program = fileURLToPath(new URL("../worker.js", import.meta.url));
    const settings = { REDIS_URL: redis.url, STORE: store, MODELS: model, LOCK_MS, TILE };
    const child = spawn(process.execPath, [program], { env: { ...process.env, ...settings } });
    const worker = { child, text: "", exited: once(child, "exit") };
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (bytes) => {
        worker.text += bytes;
      });
    }
    workers.add(worker);
    await expect.poll(() => worker.text, { timeout: 30_000 }).toContain("is ready");
    return worker;
  }

  const add = (bytes) => producer.add(bytes, { model, modelHash });

  /** The pixels that the library gives for a PNG. */
  async function wanted(bytes) {
    const upscaler = await Upscaler.load(model, { tile: TILE });
    try {
      return await upscaler.run(decodePng(bytes, "image"));
    } finally {
      upscaler.dispose();
    }
  }

  /** Waits until the job is between its beginning and its end; the process that works on it. */
  async function midJob(id) {
    let progress = null;
    await expect
      .poll(
        async () => {
          progress = (await producer.queue.getJob(id))?.progress;
          return progress?.percent ?? 0;
        },
        { timeout: 60_000, interval: 20 },
      )
      .toBeGreaterThan(4);
    expect(progress.percent).toBeLessThan(96);
    return progress.worker;
  }

  test("a result has the pixels that the library gives, with progress on the way", async () => {
    await startWorker();
    const bytes = png(160, 120);
    const id = await add(bytes);
    const seen = [];
    const path = await producer.result(id, { onProgress: ({ percent }) => seen.push(percent) });
    expect(decodePng(readFileSync(path), "result")).toEqual(await wanted(bytes));
    expect(seen.length).toBeGreaterThan(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  test("the same work asked for many times is done once", async () => {
    await startWorker();
    const bytes = png(64, 64);
    const ids = await Promise.all([add(bytes), add(bytes), add(bytes)]);
    expect(new Set(ids).size).toBe(1);
    const path = await producer.result(ids[0]);
    expect(await producer.queue.getCompletedCount()).toBe(1);
    const before = readFileSync(path);
    expect(await producer.result(await add(bytes))).toBe(path);
    expect(await producer.queue.getJobCounts("waiting", "active", "completed")).toEqual({
      waiting: 0,
      active: 0,
      completed: 1,
    });
    expect(readFileSync(path)).toEqual(before);
    expect(await add(png(64, 64, 1))).not.toBe(ids[0]);
  });

  test("a worker killed in the middle of an image: the other takes it over, same pixels", async () => {
    const two = [await startWorker(), await startWorker()];
    const bytes = png(320, 320);
    const id = await add(bytes);
    const pid = await midJob(id);
    const killed = two.find(({ child }) => child.pid === pid);
    killed.child.kill("SIGKILL");
    expect(await killed.exited).toEqual([null, "SIGKILL"]);
    expect(readdirSync(store)).not.toContain(`${id}.png`);
    const path = await producer.result(id);
    const job = await producer.queue.getJob(id);
    expect(job.attemptsStarted).toBe(2);
    expect(job.stalledCounter).toBe(1);
    expect(job.progress.worker).toBe(two.find((worker) => worker !== killed).child.pid);
    expect(decodePng(readFileSync(path), "result")).toEqual(await wanted(bytes));
  });

  test("temporary files of killed workers are removed by the next that starts, others are not", async () => {
    const first = await startWorker();
    await midJob(await add(png(320, 320)));
    first.child.kill("SIGKILL");
    await first.exited;
    const temporary = () => readdirSync(store).filter((name) => name.endsWith(".tmp"));
    const [left, ...more] = temporary();
    expect(left).toMatch(/^\.spr2q-/);
    expect(more).toEqual([]);
    writeFileSync(join(store, "another.tmp"), "of a worker that is alive");
    const twoHoursAgo = Date.now() / 1000 - 7200;
    utimesSync(join(store, left), twoHoursAgo, twoHoursAgo);
    await startWorker();
    expect(temporary()).not.toContain(left);
    expect(temporary()).toContain("another.tmp");
  });

  test("what fails for a while is tried again, later each time", async () => {
    const bytes = png(48, 48);
    const id = await add(bytes);
    const { input } = jobFiles(store, id);
    rmSync(input); // as where the store is not mounted yet
    const worker = await startWorker();
    await expect.poll(() => worker.text, { timeout: 20_000 }).toContain("ERR_IO");
    writeFileSync(input, bytes);
    const path = await producer.result(id);
    const job = await producer.queue.getJob(id);
    expect(job.attemptsMade).toBeGreaterThanOrEqual(2);
    expect(decodePng(readFileSync(path), "result")).toEqual(await wanted(bytes));
  });

  test("what cannot succeed fails at once with its code, and can be asked for again", async () => {
    await startWorker();
    const id = await add(png(48, 48).slice(0, 300));
    await expect(producer.result(id)).rejects.toThrow("ERR_IMAGE");
    expect((await producer.queue.getJob(id)).attemptsMade).toBe(1);
    expect(await add(png(48, 48).slice(0, 300))).toBe(id);
    await expect(producer.result(id)).rejects.toThrow("ERR_IMAGE");
  });

  test("a cancelled job stops: at work, and while it waits", async () => {
    const worker = await startWorker();
    const running = await add(png(320, 320));
    const waiting = await add(png(64, 64));
    await midJob(running);
    await producer.cancel(waiting);
    expect(await producer.queue.getJob(waiting)).toBeUndefined();
    const failed = producer.result(running);
    await producer.cancel(running);
    await expect(failed).rejects.toThrow("cancelled");
    expect((await producer.queue.getJob(running)).attemptsMade).toBe(1);
    expect(readdirSync(store).filter((name) => name.endsWith(".png"))).toEqual([]);
    const next = png(32, 32);
    expect(await producer.result(await add(next))).toContain(".png");
    expect(worker.child.exitCode).toBeNull();
  });

  test("SIGTERM: the image at work is finished, and the process ends with 0", async () => {
    const worker = await startWorker();
    const id = await add(png(240, 240));
    await midJob(id);
    worker.child.kill("SIGTERM");
    expect(await worker.exited).toEqual([0, null]);
    expect(await producer.result(id)).toBe(jobFiles(store, id).output);
  });
});
