/** How late timers are while images are upscaled for ten seconds, and while nothing happens. */
import { modelPath, picture, report, sleep, spr2q } from "./common.mjs";
import { watch } from "./delay.mjs";

async function delayDuring(work) {
  const { histogram, seen } = watch();
  await work();
  histogram.disable();
  return seen();
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
