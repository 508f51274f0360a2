/**
 * libuv's threads and the addon's are not the same: with runs at work in more models than libuv has
 * threads a file is read at once, and with all of libuv's threads busy a run comes to its end.
 */
import { pbkdf2, pbkdf2Sync } from "node:crypto";
import { readFile } from "node:fs/promises";
import { modelPath, picture, report, spr2q } from "./common.mjs";

const LIBUV = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
/** Promises and how many of them are not settled. */
function watched(promises) {
  let pending = promises.length;
  for (const promise of promises) promise.then(() => pending--);
  return { all: Promise.all(promises), pending: () => pending };
}

const models = [];
for (let i = 0; i < 2 * LIBUV; i++) models.push(await spr2q.Upscaler.load(modelPath));
await models[0].run(picture(16, 16));

let begun;
const working = new Promise((resolve) => {
  begun = resolve;
});
const onProgress = (share) => share > 0 && begun();
const large = picture(512, 512);
const runs = watched(models.map((model) => model.run(large, { onProgress })));
await working;
await readFile(modelPath);
const runsLeft = runs.pending();
await runs.all;

/** Rounds of a hash that hold a thread for some seconds. */
const began = performance.now();
pbkdf2Sync("a", "b", 100_000, 32, "sha512");
const rounds = Math.ceil((3000 / (performance.now() - began)) * 100_000);
const hash = () =>
  new Promise((resolve) => pbkdf2("a", "b", rounds, 32, "sha512", () => resolve()));
const hashes = watched(Array.from({ length: LIBUV }, hash));
const { width } = await models[0].run(picture(20, 20));
report({ models: models.length, runsLeft, libuv: LIBUV, hashesLeft: hashes.pending(), width });
await hashes.all;
