/** Started with little address space: what cannot be had is a coded error, and small work goes on. */
import { modelPath, picture, report, spr2q } from "./common.mjs";

const upscaler = await spr2q.Upscaler.load(modelPath);
await upscaler.run(picture(16, 16));
const codes = [];
const messages = [];
for (const side of [3000, 3600, 4500]) {
  const options = { tile: "none", maxMemory: 2 ** 50 };
  await upscaler.run(picture(side, side), options).then(
    () => codes.push("finished"),
    (error) => {
      codes.push(error.code ?? error.name);
      messages.push(error.message);
    },
  );
}
const refused = await upscaler.run(picture(3000, 3000), { tile: "none" }).then(
  () => "finished",
  (error) => error.code,
);
const { width } = await upscaler.run(picture(20, 20));
report({ codes, messages, refused, width });
