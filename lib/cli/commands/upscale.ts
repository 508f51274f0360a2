/** `spr2q upscale`: enlarges an image or a folder of images with any model file. */
import { basename, dirname } from "node:path";
import { native } from "../../binding.ts";
import { checkUpscalable, type UpscaleOptions } from "../../infer/settings.ts";
import { Upscaler } from "../../infer/upscaler.ts";
import { ensureWritableDir, writeFileAtomic } from "../../io/files.ts";
import { IMAGE_KINDS } from "../../io/image_kind.ts";
import type { RasterImage } from "../../io/png.ts";
import { checkHolds, encodeWithSharp } from "../../io/sharp.ts";
import { defineCommand } from "../args.ts";
import { parseTile, routingOptions } from "../run_options.ts";
import { type Job, planJobs } from "../upscale_jobs.ts";

/**
 * Enlarges one image into its file: a PNG strip by strip, any other kind in memory and then by sharp.
 * Returns the sides of the result in pixels and how it was cut.
 */
async function enlarge(
  upscaler: Upscaler,
  image: RasterImage,
  job: Job,
  quality: number,
  options: UpscaleOptions,
) {
  if (job.kind === "png") return upscaler.save(image, job.out, options);
  const { width, height, ...rest } = await upscaler.run(image, options);
  const bytes = await encodeWithSharp({ width, height, ...rest }, job.kind, quality);
  await writeFileAtomic(job.out, bytes);
  return { width, height, tiling: options.tile ?? null };
}

export const command = defineCommand({
  name: "upscale",
  summary: "enlarge an image or a folder of images",
  usage: "IN|DIR -o OUT --model M [--tile auto] [--max-memory SIZE]",
  positionals: {
    min: 1,
    max: 1,
    help: "IN or DIR, a PNG, JPEG, WebP or AVIF file or a folder of them",
  },
  options: [
    {
      name: "output",
      short: "o",
      type: "string",
      required: true,
      value: "OUT",
      help: "a .png, .jpg, .webp or .avif file, or a folder (made if need be)",
    },
    {
      name: "model",
      type: "string",
      required: true,
      value: "FILE",
      help: "model file; it knows its scale and bits",
    },
    {
      name: "tile",
      type: "string",
      default: "auto",
      value: "T",
      help: "none (whole image), official (MambaIRv2's rule), a side, or auto: whole up to 512x512 pixels, else 256",
    },
    {
      name: "max-memory",
      type: "size",
      help:
        "most that an image may take beside the model, as 512M or 1.5GiB: tile auto is then the " +
        "largest that fits; without it, runs are refused only where the machine has too little",
    },
    {
      name: "format",
      type: "choice",
      choices: IMAGE_KINDS,
      help: "kind of the files in a folder OUT, png unless given; all but png need the package sharp",
    },
    {
      name: "quality",
      type: "integer",
      min: 1,
      max: 100,
      default: 90,
      help: "of a JPEG, WebP or AVIF result",
    },
    ...routingOptions,
  ],
  async run(ctx) {
    const { options, signal } = ctx;
    const tile = parseTile(options.tile);
    const { routing, seed } = options as { routing: "sampled" | "argmax"; seed: number };
    const jobs = await planJobs(ctx.positionals[0], options.output, options.format);
    const maxMemory = options["max-memory"];
    using upscaler = await Upscaler.load(options.model, { tile, routing, seed, maxMemory });
    const { scale, bits } = upscaler;
    // Every image is read once before the first is run: a bad one must not end hours of work.
    let only: RasterImage | null = null;
    for (const job of jobs) {
      signal.throwIfAborted();
      const image = await upscaler.read(job.in);
      checkHolds(image, job.kind);
      if (job.kind !== "png") checkUpscalable(image, scale, job.in);
      if (jobs.length === 1) only = image;
    }
    await ensureWritableDir(dirname(jobs[0].out));
    const images: object[] = [];
    native().peakBytes(true);
    const began = performance.now();
    for (const [i, job] of jobs.entries()) {
      const image = only ?? (await upscaler.read(job.in));
      const started = performance.now();
      const onProgress = (share: number): void => {
        const done = Math.round((100 * (i + share)) / jobs.length);
        ctx.progress.update({ label: "upscaling", done, total: 100, note: basename(job.in) });
      };
      onProgress(0);
      const how = { tile, signal, onProgress };
      const saved = await enlarge(upscaler, image, job, options.quality, how);
      const seconds = (performance.now() - started) / 1000;
      const { width, height, tiling } = saved;
      images.push({ in: job.in, out: job.out, width, height, tile: tiling, seconds });
      ctx.out(`${job.out}  ${width}x${height}  ${seconds.toFixed(2)} s`);
    }
    ctx.progress.finish();
    const { metadata, net, quantised } = upscaler.model;
    const routed = net.architecture.routes ? { routing, seed } : { routing: null, seed: null };
    ctx.result({
      images,
      model: options.model,
      scale,
      bits,
      scope: quantised?.policy.scope ?? null,
      recipe: metadata.recipe ?? null,
      tile: options.tile,
      maxMemory: maxMemory ?? null,
      peakBytes: native().peakBytes(false),
      ...routed,
      backend: native().backendName(),
      seconds: (performance.now() - began) / 1000,
    });
  },
});
