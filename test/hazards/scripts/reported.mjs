/**
 * What the addon holds is told to the garbage collector: the arena of a run while it is at work, a
 * shared model as long as it is there. Needs --expose-gc.
 */
import { modelPath, native, picture, report, sleep, spr2q } from "./common.mjs";

/** Bytes outside of its heap that the collector knows of, with what is garbage taken away. */
async function known() {
  for (let i = 0; i < 3; i++) {
    globalThis.gc();
    await sleep(20);
  }
  return native().adjustMemory(0);
}

const upscaler = await spr2q.Upscaler.load(modelPath);
const image = picture(512, 512);
const settings = { tile: "none", maxMemory: 2 ** 40 };
await upscaler.run(image, settings); // traces and packs once
const before = await known();
let working = 0;
const onProgress = (share) => {
  if (share > 0 && share < 1) working = Math.max(working, native().adjustMemory(0));
};
native().peakBytes(true);
await upscaler.run(image, { ...settings, onProgress });
const arena = upscaler.stats().peakBytes;
const after = await known();

let shared = upscaler.share();
const { bytes } = shared;
const sharing = await known();
shared = null;
upscaler.dispose();
report({ before, working, arena, after, bytes, sharing });
