/** 50 cycles of load, run, dispose: neither resident memory nor constants may stay. Needs --expose-gc. */
import { modelPath, native, picture, report, sleep, slope, spr2q } from "./common.mjs";

const image = picture(32, 32);
const resident = [];
for (let i = 0; i < 50; i++) {
  const upscaler = await spr2q.Upscaler.load(modelPath);
  await upscaler.run(image);
  upscaler.dispose();
  globalThis.gc();
  if (i >= 20) resident.push(process.memoryUsage().rss / 2 ** 20);
}
await sleep(50);
report({
  megabytesPerCycle: slope(resident),
  constantBytes: native().constantBytes(),
  resident,
});
