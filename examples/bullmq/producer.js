/**
 * Puts images into the queue and waits for results. As a program:
 *
 *   REDIS_URL=redis://127.0.0.1:6379 STORE=/shared/store MODEL=model.safetensors node producer.js picture.png
 *
 * prints the path of the enlarged PNG. Ctrl-C cancels the job.
 */
import { readFile } from "node:fs/promises";
import { Queue, QueueEvents } from "bullmq";
import { Redis } from "ioredis";
import {
  CANCEL_CHANNEL,
  CANCEL_SECONDS,
  cancelKey,
  checkStore,
  exists,
  hashFile,
  JOB_OPTIONS,
  jobFiles,
  jobId,
  QUEUE,
  writeWhole,
} from "./jobs.js";

export class Producer {
  /** `url` of Redis, `store` the folder that workers see too. */
  constructor({ url, store }) {
    this.store = store;
    this.connection = new Redis(url, { maxRetriesPerRequest: null });
    this.listening = this.connection.duplicate(); // waits for events and does nothing else
    for (const connection of [this.connection, this.listening]) {
      connection.on("error", (error) => console.error(`Redis: ${error.message}`)); // it reconnects
    }
    this.queue = new Queue(QUEUE, { connection: this.connection });
    this.events = new QueueEvents(QUEUE, { connection: this.listening });
  }

  /**
   * Asks for an image (bytes of a file) to be enlarged. Asking again for the same work, from anywhere,
   * makes no second job; a result that is there already costs nothing. Returns the job's id.
   */
  async add(bytes, { model, modelHash, seed = 0 }) {
    const id = jobId(bytes, { modelHash, seed });
    const { input, output } = jobFiles(this.store, id);
    if (await exists(output)) return id;
    if (!(await exists(input))) await writeWhole(input, bytes);
    await this.connection.del(cancelKey(id));
    const before = await this.queue.getJob(id);
    // A failed job keeps its id; it makes room for a new one. One whose result was deleted does too.
    const over = before && ((await before.isFailed()) || (await before.isCompleted()));
    if (over) await before.remove().catch(() => {}); // another producer was faster
    await this.queue.add("upscale", { model, modelHash, seed }, { ...JOB_OPTIONS, jobId: id });
    return id;
  }

  /** Path of the result once it is there. Rejects with the reason where the job has failed. */
  async result(id, { onProgress = () => {} } = {}) {
    const { output } = jobFiles(this.store, id);
    if (await exists(output)) return output;
    const job = await this.queue.getJob(id);
    if (!job) throw new Error(`There is no job ${id}.`);
    const progress = ({ jobId: of, data }) => of === id && onProgress(data);
    this.events.on("progress", progress);
    try {
      await job.waitUntilFinished(this.events);
      return output;
    } finally {
      this.events.off("progress", progress);
    }
  }

  /** Cancels a job: one that waits is removed, one at work is stopped wherever it runs. */
  async cancel(id) {
    await this.connection.set(cancelKey(id), "1", "EX", CANCEL_SECONDS);
    const job = await this.queue.getJob(id);
    if (job && ((await job.isWaiting()) || (await job.isDelayed()))) {
      await job.remove().catch(() => {}); // a worker took it just now: it hears of it below
    }
    await this.connection.publish(CANCEL_CHANNEL, id);
  }

  async close() {
    await Promise.all([this.queue.close(), this.events.close()]);
    this.listening.disconnect();
    await this.connection.quit();
  }
}

/** The program. */
async function main([path]) {
  const {
    REDIS_URL: url = "redis://127.0.0.1:6379",
    STORE: store = "store",
    MODEL: model,
  } = process.env;
  if (!path || !model) throw new Error("usage: MODEL=FILE node producer.js PICTURE");
  await checkStore(store);
  const producer = new Producer({ url, store });
  try {
    await producer.events.waitUntilReady();
    const id = await producer.add(await readFile(path), {
      model,
      modelHash: await hashFile(model),
    });
    process.once("SIGINT", () => producer.cancel(id));
    console.log(
      await producer.result(id, { onProgress: ({ percent }) => console.error(`${percent} %`) }),
    );
  } finally {
    await producer.close();
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main(process.argv.slice(2));
