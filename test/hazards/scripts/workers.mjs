/** Two models, eight workers, all at once: every result is what one thread alone makes of it. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { home, modelPath, native, picture, report, spr2q } from "./common.mjs";

const SIDES = [40, 57, 96];
const hash = ({ data }) => createHash("sha256").update(data).digest("hex");
const hashes = async (upscalers) => {
  const runs = upscalers.flatMap((one) => SIDES.map((side) => one.run(picture(side, side))));
  return (await Promise.all(runs)).map(hash);
};

if (!isMainThread) {
  const upscalers = await Promise.all(workerData.map((shared) => spr2q.Upscaler.load(shared)));
  const first = await hashes(upscalers);
  const again = await hashes(upscalers);
  parentPort.postMessage({ first, again, held: native().constantBytes() });
  upscalers[0].dispose();
} else {
  const out = mkdtempSync(join(tmpdir(), "spr2q-workers-"));
  const few = { iterations: 0, osrc: 0, recipe: "quick", patch: 16 };
  const train = join(home, "assets", "images");
  const { model } = await spr2q.quantize(modelPath, { bits: 4, train, out, ...few });
  const upscalers = await Promise.all([modelPath, model].map((path) => spr2q.Upscaler.load(path)));
  const wanted = await hashes(upscalers);
  const held = native().constantBytes();
  const shared = upscalers.map((one) => one.share());
  const told = await Promise.all(
    Array.from({ length: 8 }, () => {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: shared });
      return new Promise((resolve, reject) => {
        let message;
        worker.once("message", (value) => {
          message = value;
        });
        worker.once("error", reject);
        worker.once("exit", (code) => resolve({ ...message, code }));
      });
    }),
  );
  rmSync(out, { recursive: true });
  const same = (list) => JSON.stringify(list) === JSON.stringify(wanted);
  report({
    wrong: told.filter(({ first, again }) => !same(first) || !same(again)).length,
    codes: told.map(({ code }) => code),
    held,
    most: Math.max(...told.map((one) => one.held)),
    different: new Set(wanted).size,
  });
}
