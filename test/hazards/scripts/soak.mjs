/**
 * A server's hour in SPR2Q_SOAK_SECONDS: two models with their queues always full, images of many
 * sizes, every fifth run aborted, streams that are left, models reloaded. Needs --expose-gc.
 */
import { modelPath, native, picture, report, sleep, slope, spr2q } from "./common.mjs";

const seconds = Number(process.env.SPR2Q_SOAK_SECONDS ?? 300);
const end = performance.now() + seconds * 1000;
const counts = { finished: 0, aborted: 0, streamed: 0, left: 0, reloaded: 0 };
const unexpected = [];
let state = 1;
const random = (n) => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};

const models = [await spr2q.Upscaler.load(modelPath), await spr2q.Upscaler.load(modelPath)];

async function client(number) {
  for (let i = 0; performance.now() < end; i++) {
    const slot = (number + i) % models.length;
    const image = picture(24 + random(100), 24 + random(100), [1, 3, 4][random(3)]);
    const dice = random(5);
    try {
      if (dice === 0) {
        const controller = new AbortController();
        setTimeout(() => controller.abort(), random(60));
        await models[slot].run(image, { signal: controller.signal });
        counts.finished++;
      } else if (dice === 1) {
        const leave = random(2) === 0;
        for await (const _ of models[slot].png(image, { tile: 32 })) if (leave) break;
        counts[leave ? "left" : "streamed"]++;
      } else {
        const { width } = await models[slot].run(image);
        if (width !== 2 * image.width) throw new Error(`${width} columns of ${image.width}`);
        counts.finished++;
      }
    } catch (error) {
      if (error.code === "ERR_ABORTED") counts.aborted++;
      else if (error.code !== "ERR_DISPOSED") unexpected.push(`${error.code} ${error.message}`);
    }
  }
}

async function reloader() {
  while (performance.now() < end) {
    await sleep(4000);
    const old = models[counts.reloaded % models.length];
    models[counts.reloaded++ % models.length] = await spr2q.Upscaler.load(modelPath);
    old.dispose();
  }
}

/** Calls that fill what is kept: plans of as many sizes as there may be, and heaps. */
const WARM_UP = 300;
/** Resident megabytes after every tenth call behind those. */
const resident = [];
async function watcher() {
  const calls = () => counts.finished + counts.aborted + counts.streamed + counts.left;
  for (let next = WARM_UP; performance.now() < end; ) {
    await sleep(20);
    if (calls() < next) continue;
    globalThis.gc();
    resident.push(process.memoryUsage().rss / 2 ** 20);
    next = calls() + 10;
  }
}

await Promise.all([...Array.from({ length: 8 }, (_, i) => client(i)), reloader(), watcher()]);
const waiting = models.map((model) => model.stats().queued + model.stats().running);
for (const model of models) model.dispose();
globalThis.gc();
await sleep(100);
const judged = resident.length;
const megabytesPerCall = judged > 1 ? slope(resident) / 10 : null;
const most = Math.max(process.memoryUsage().rss / 2 ** 20, ...resident);
const held = native().constantBytes();
report({ counts, unexpected, waiting, judged, megabytesPerCall, most, held });
