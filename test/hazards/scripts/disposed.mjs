/** Everything that can be called after dispose(), and dispose() under whatever may be going on. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { modelPath, picture, report, spr2q } from "./common.mjs";

const image = picture(40, 40);
const codes = {};
const outcome = async (name, action) => {
  codes[name] = await (async () => action())().then(
    () => "fine",
    (error) => error.code ?? error.message,
  );
};
const all = async (items) => {
  for await (const _ of items);
};
const gone = await spr2q.Upscaler.load(modelPath);
gone.dispose();
gone.dispose();
await outcome("run", () => gone.run(image));
await outcome("save", () => gone.save(image, join(tmpdir(), "never.png")));
await outcome("stream", () => all(gone.stream(image)));
await outcome("png", () => all(gone.png(image)));
await outcome("read", () => gone.read(modelPath));
await outcome("stats", () => gone.stats());
await outcome("share", () => gone.share());
await outcome("model", () => gone.model);
await outcome("scale", () => gone.scale);

const busy = await spr2q.Upscaler.load(modelPath);
const runs = [300, 40, 40].map((side) => busy.run(picture(side, side)));
const stream = busy.stream(picture(300, 300), { tile: 64 });
const first = outcome("streamed", () => all(stream));
busy.dispose();
for (const [i, run] of runs.entries()) await outcome(`running ${i}`, () => run);
await first;

// What the garbage collector takes while it works must not be missed.
for (let i = 0; i < 20; i++) {
  const lost = await spr2q.Upscaler.load(modelPath);
  const run = lost.run(picture(120, 120));
  globalThis.gc();
  if (i % 2) lost.dispose();
  await run.catch(() => {});
  globalThis.gc();
}
report(codes);
