/** How late timers are while images are upscaled for ten seconds, and while nothing happens. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { modelPath, picture, report, sleep, spr2q } from "./common.mjs";

const RESOLUTION = 1; // ms; the histogram counts from one timer to the next, this included

async function delayDuring(work) {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION });
  histogram.enable();
  await work();
  histogram.disable();
  const ms = (ns) => ns / 1e6 - RESOLUTION;
  const [p50, p99] = [50, 99].map((p) => ms(histogram.percentile(p)));
  return { p50, p99, max: ms(histogram.max), count: histogram.count };
}

const upscaler = await spr2q.Upscaler.load(modelPath);
const image = picture(512, 512);
await upscaler.run(picture(512, 512)); // traces and packs once
const before = await delayDuring(() => sleep(3000));
let runs = 0;
const busy = await delayDuring(async () => {
  const end = performance.now() + 10_000;
  while (performance.now() < end) {
    await upscaler.run(image);
    runs++;
  }
});
const after = await delayDuring(() => sleep(3000));
report({ idle: { p99: Math.max(before.p99, after.p99) }, busy, runs });
