/**
 * Workers ended in the middle of a job, fifty times. With the argument "alone", the main thread never
 * loads the addon: it is then unloaded with each worker, under any thread left running.
 */
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";

if (!isMainThread) {
  const { modelPath, picture, spr2q } = await import("./common.mjs");
  const upscaler = await spr2q.Upscaler.load(modelPath);
  const onProgress = (share) => share > 0 && parentPort.postMessage("working");
  for (;;) {
    const runs = [256, 300].map((side) => upscaler.run(picture(side, side), { onProgress }));
    await Promise.all(runs);
  }
} else {
  const alone = process.argv.includes("alone");
  const { modelPath, picture, report, sleep, spr2q } = alone
    ? await import("./quiet.mjs")
    : await import("./common.mjs");
  let terminated = 0;
  const end = async (i) => {
    const worker = new Worker(fileURLToPath(import.meta.url));
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await sleep((i * 7) % 60);
    await worker.terminate();
    terminated++;
  };
  for (let i = 0; i < 50; i += 2) await Promise.all([end(i), end(i + 1)]);
  const width = alone
    ? 40
    : (await (await spr2q.Upscaler.load(modelPath)).run(picture(20, 20))).width;
  report({ terminated, width });
}
