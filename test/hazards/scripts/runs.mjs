/** 500 runs of images of changing size: resident memory must not rise with them. Needs --expose-gc. */
import { modelPath, picture, report, slope, spr2q } from "./common.mjs";

const upscaler = await spr2q.Upscaler.load(modelPath);
const images = [picture(48, 48), picture(64, 40, 4), picture(33, 57, 1)];
const resident = [];
for (let i = 0; i < 500; i++) {
  await upscaler.run(images[i % images.length]);
  if (i < 100 || i % 10) continue;
  globalThis.gc();
  resident.push(process.memoryUsage().rss / 2 ** 20);
}
report({ runs: upscaler.stats().finished, megabytesPerRun: slope(resident) / 10, resident });
