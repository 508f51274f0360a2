/** Aborts at twenty moments of a long run: how long until the promise rejects, and until work stops. */
import { modelPath, picture, report, sleep, spr2q } from "./common.mjs";

const upscaler = await spr2q.Upscaler.load(modelPath);
const image = picture(1024, 1024);
await upscaler.run(picture(64, 64));
let late = 0; // by how much the machine itself delays this thread
for (let i = 0; i < 200; i++) {
  const began = performance.now();
  await sleep(5);
  late = Math.max(late, performance.now() - began - 5);
}
const rejected = [];
const codes = new Set();
let worked = 0;
for (let i = 0; i < 20; i++) {
  const controller = new AbortController();
  const run = upscaler.run(image, { tile: "none", signal: controller.signal, maxMemory: 2 ** 40 });
  const outcome = run.then(
    () => "finished",
    (error) => error.code,
  );
  await sleep(20 + 37 * i);
  const began = performance.now();
  controller.abort();
  codes.add(await outcome);
  rejected.push(performance.now() - began);
  await sleep(150); // threads end the part of the step that they are in
  const cpu = process.cpuUsage();
  await sleep(200);
  const { user } = process.cpuUsage(cpu);
  worked = Math.max(worked, user / 1000);
}
const after = await upscaler.run(picture(20, 20));
report({ codes: [...codes], slowest: Math.max(...rejected), late, worked, width: after.width });
