/**
 * `spr2q demo`: the main job on what the package carries: quantise the bundled network with the
 * bundled pictures, upscale, print quality before and after, write report.html.
 */
import { join } from "node:path";
import { packageRoot } from "../../binding.ts";
import { evaluateFolder, upscaleRgb } from "../../infer/evaluate.ts";
import { openModel } from "../../infer/model.ts";
import { type RunOptions, TileRunner } from "../../infer/tiles.ts";
import { ensureWritableDir, writeFileAtomic } from "../../io/files.ts";
import { type LoadedPair, loadPair, pairImages } from "../../io/images.ts";
import { encodePng, type RasterImage } from "../../io/png.ts";
import { bicubicResize } from "../../metrics/resize.ts";
import { quantizeModel } from "../../methods/quantize.ts";
import type { Comparison } from "../../report/html.ts";
import { writeRunReport } from "../../report/run.ts";
import type { TrainEvent } from "../../train/events.ts";
import { defineCommand } from "../args.ts";
import { packageVersion } from "../../binding.ts";

const base64 = (image: RasterImage): string => Buffer.from(encodePng(image)).toString("base64");

export const command = defineCommand({
  name: "demo",
  summary: "quantise the bundled model, upscale a bundled image, write a report",
  usage: "[--out DIR]",
  options: [
    {
      name: "out",
      type: "string",
      default: "spr2q-demo",
      value: "DIR",
      help: "folder for model, pictures and report",
    },
    {
      name: "bits",
      type: "choice",
      choices: [8, 4, 2, 1],
      default: 4,
      help: "bits of weights and activations",
    },
    { name: "iterations", type: "integer", min: 0, max: 100_000, default: 100, help: "RGT steps" },
    {
      name: "seed",
      type: "integer",
      min: 0,
      max: 2147483647,
      default: 0,
      help: "seed of everything random",
    },
  ],
  async run(ctx) {
    const { options } = ctx;
    const images = join(packageRoot(), "assets", "images");
    const source = await openModel(
      join(packageRoot(), "assets", "model", "mambairv2-light-x2.safetensors"),
    );
    const { scale } = source.net.config;
    await ensureWritableDir(options.out);
    const how: RunOptions = {
      tiling: "none",
      routing: "sampled",
      seed: options.seed,
      signal: ctx.signal,
    };

    const run = quantizeModel(source, {
      bits: options.bits,
      train: images,
      out: options.out,
      recipe: "quick",
      scope: "best",
      rank: 8,
      rectifiers: 4,
      iterations: options.iterations,
      osrc: Math.min(10, options.iterations),
      batch: 4,
      patch: 32,
      seed: options.seed,
      signal: ctx.signal,
      version: packageVersion(),
    });
    const events: TrainEvent[] = [];
    let step = await run.next();
    for (; !step.done; step = await run.next()) {
      const event = step.value;
      events.push(event);
      if (event.type === "step") {
        ctx.progress.update({
          label: `quantising (${event.stage})`,
          done: event.iteration,
          total: event.iterations,
          unit: "iterations",
          note: `loss ${event.loss.toFixed(5)}`,
        });
      }
    }
    ctx.progress.finish();

    const packed = await openModel(step.value.model);
    const bicubic = await evaluateFolder(null, scale, images, undefined, how);
    const before = await evaluateFolder(source, scale, images, undefined, how);
    const after = await evaluateFolder(packed, scale, images, undefined, how);
    const comparisons = await compare(
      images,
      scale,
      new TileRunner(packed),
      how,
      options.out,
      options.bits,
    );
    const rows = before.images.map(({ name, psnr }, i) => [
      name,
      bicubic.images[i].psnr.toFixed(2),
      psnr.toFixed(2),
      after.images[i].psnr.toFixed(2),
    ]);
    rows.push(["mean", bicubic.psnr.toFixed(2), before.psnr.toFixed(2), after.psnr.toFixed(2)]);
    const columns = ["picture", "bicubic, dB", "full precision, dB", `${options.bits} bit, dB`];
    const report = await writeRunReport(options.out, {
      title: `spr2q demo: ${options.bits} bit`,
      command: `spr2q demo --seed ${options.seed}`,
      events,
      table: step.value.table,
      results: { columns, rows },
      comparisons,
      facts: [
        ["model", `${(step.value.bytes / 1024).toFixed(0)} KiB packed`],
        ["time", `${step.value.seconds.toFixed(0)} s`],
      ],
    });
    for (const [name, ...values] of rows) {
      ctx.out(
        `${name.padEnd(14)} bicubic ${values[0]} dB   full precision ${values[1]} dB   ${options.bits} bit ${values[2]} dB`,
      );
    }
    ctx.out(
      `model   ${step.value.model} (${(step.value.bytes / 1024).toFixed(0)} KiB, quantised in ${step.value.seconds.toFixed(0)} s)`,
    );
    ctx.out(`report  ${report}`);
    ctx.result({
      bicubic: bicubic.psnr,
      before: before.psnr,
      after: after.psnr,
      bits: options.bits,
      model: step.value.model,
      report,
      seconds: step.value.seconds,
    });
  },
});

/** Upscales every picture with the packed model, writes it, and pairs it with bicubic. */
async function compare(
  images: string,
  scale: number,
  runner: TileRunner,
  how: RunOptions,
  out: string,
  bits: number,
): Promise<Comparison[]> {
  const result: Comparison[] = [];
  for (const pair of await pairImages(images, null, scale)) {
    const { name, lr }: LoadedPair = await loadPair(pair, scale);
    const plain = bicubicResize(lr.data, lr.width, lr.height, 3, scale);
    const sharp = await upscaleRgb(runner, lr, how);
    await writeFileAtomic(
      join(out, `${name.replace(/\.png$/, "")}-x${scale}.png`),
      encodePng(sharp),
    );
    result.push({
      name,
      left: { label: "bicubic", pngBase64: base64({ ...plain, channels: 3, depth: 8 }) },
      right: { label: `${bits} bit`, pngBase64: base64(sharp) },
      caption: `${name}: ${lr.width}x${lr.height} upscaled x${scale}`,
    });
  }
  return result;
}
