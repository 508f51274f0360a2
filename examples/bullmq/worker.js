/**
 * Enlarges what is in the queue, one image at a time (each uses all cores); start one per machine:
 *
 *   REDIS_URL=redis://127.0.0.1:6379 STORE=/shared/store MODELS=a.safetensors,b.safetensors node worker.js
 *
 * A worker that dies loses its lock on the job after LOCK_MS, and another takes the job over. SIGTERM
 * lets the image at work finish. Results are idempotent: they appear whole, under the job's name, with
 * the same bytes whoever made them.
 */
import { UnrecoverableError, Worker } from "bullmq";
import { Redis } from "ioredis";
import { Upscaler } from "spr2q";
import {
  CANCEL_CHANNEL,
  cancelKey,
  checkStore,
  exists,
  hashFile,
  jobFiles,
  QUEUE,
  sweep,
} from "./jobs.js";

/** Codes of errors that another attempt would meet again. */
const PERMANENT = ["ERR_IMAGE", "ERR_NEED_SHARP", "ERR_CHECKPOINT", "ERR_ARGUMENT"];

/** Milliseconds after which a silent worker's job is given to another, and between looks for such. */
const LOCK_MS = Number(process.env.LOCK_MS ?? 30_000);
/** How often a job may be taken over: one that kills every worker must end some time. */
const MAX_TAKEOVERS = 2;
/** Milliseconds after which a temporary file that nobody writes to is a killed worker's. */
const STALE_MS = 3_600_000;

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379";
const store = process.env.STORE ?? "store";
const tile = process.env.TILE ? Number(process.env.TILE) : "auto";

await checkStore(store);
const swept = await sweep(store, STALE_MS);
if (swept > 0) console.log(`${swept} temporary files of killed workers removed`);

/** Upscalers by the hash of their model's file. */
const upscalers = new Map();
for (const path of (process.env.MODELS ?? "").split(",").filter(Boolean)) {
  upscalers.set(await hashFile(path), await Upscaler.load(path, { tile }));
}
if (upscalers.size === 0) throw new Error("usage: MODELS=FILE,… node worker.js");

const connection = new Redis(url, { maxRetriesPerRequest: null });
const subscriber = connection.duplicate();
for (const link of [connection, subscriber]) {
  link.on("error", (error) => console.error(`Redis: ${error.message}`)); // it reconnects
}

/** Enlarges the image of one job. BullMQ fires `signal` where the job is cancelled. */
async function upscale(job, _token, signal) {
  const { input, output } = jobFiles(store, job.id);
  const { modelHash, seed } = job.data;
  if (await connection.exists(cancelKey(job.id))) throw new UnrecoverableError("cancelled");
  if (await exists(output)) return { reused: true };
  const upscaler = upscalers.get(modelHash);
  if (!upscaler) throw new Error(`This worker has no model ${job.data.model}.`);
  try {
    const image = await upscaler.read(input);
    let shown = -1;
    const onProgress = (share) => {
      const percent = Math.floor(100 * share);
      if (percent === shown) return;
      shown = percent;
      // Progress is news, not state: one that is lost is followed by the next.
      job.updateProgress({ percent, worker: process.pid }).catch(() => {});
    };
    const { width, height } = await upscaler.save(image, output, { seed, signal, onProgress });
    return { reused: false, width, height };
  } catch (error) {
    if (await connection.exists(cancelKey(job.id))) throw new UnrecoverableError("cancelled");
    const text = `${error.code ?? error.name}: ${error.message}`;
    if (PERMANENT.includes(error.code)) throw new UnrecoverableError(text);
    throw new Error(text, { cause: error }); // tried again, here or elsewhere
  }
}

const worker = new Worker(QUEUE, upscale, {
  connection,
  concurrency: 1,
  lockDuration: LOCK_MS,
  stalledInterval: LOCK_MS / 2,
  maxStalledCount: MAX_TAKEOVERS,
});
worker.on("error", (error) => console.error(`worker ${process.pid}: ${error.message}`));
worker.on("failed", (job, error) => console.error(`job ${job?.id.slice(0, 8)}: ${error.message}`));

await subscriber.subscribe(CANCEL_CHANNEL);
subscriber.on("message", (_channel, id) => worker.cancelJob(id, "cancelled"));

await worker.waitUntilReady();
console.log(`worker ${process.pid} is ready`);

let ending = false;
async function end() {
  if (ending) return;
  ending = true;
  await worker.close(); // waits for the image at work
  await subscriber.quit();
  await connection.quit();
  for (const upscaler of upscalers.values()) upscaler.dispose();
}
process.on("SIGTERM", end);
process.on("SIGINT", end);
