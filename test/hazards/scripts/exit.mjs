/**
 * Leaves in the middle of a job: "exit" by process.exit(7), "worker" by process.exit() in a worker,
 * "idle" by having nothing left to do but the job, whose result must still come.
 */
import { fileURLToPath } from "node:url";
import { isMainThread, Worker } from "node:worker_threads";
import { modelPath, picture, report, spr2q } from "./common.mjs";

const how = process.argv[2];
if (isMainThread && how === "worker") {
  new Worker(fileURLToPath(import.meta.url), { argv: ["exit"] }).on("exit", (code) => {
    report({ code });
    process.exitCode = code;
  });
} else {
  const upscaler = await spr2q.Upscaler.load(modelPath);
  const onProgress = (share) => {
    if (share > 0 && how === "exit") process.exit(7);
  };
  upscaler.run(picture(200, 200), { onProgress }).then(({ width }) => report({ width }));
}
