/** `spr2q upscale`: enlarges a PNG or a folder of PNGs with any model file. */
import { realpath, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { native } from "../../binding.ts";
import type { DeviceChoice } from "../../device.ts";
import { expected } from "../../errors.ts";
import { Upscaler } from "../../infer/upscaler.ts";
import { ensureWritableDir, ioError } from "../../io/files.ts";
import { listImages } from "../../io/images.ts";
import type { RasterImage } from "../../io/png.ts";
import { defineCommand } from "../args.ts";
import { deviceOption, parseTile, routingOptions } from "../run_options.ts";

/** One image to read and the file to write. */
export interface Job {
  readonly in: string;
  readonly out: string;
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/**
 * What to read and where to write: a PNG goes to a .png path or, under its own name, into a folder;
 * a folder's PNGs go into a folder. Throws ERR_IO where `input` does not exist, ERR_USAGE where a
 * folder should become a file or a file would replace itself, ERR_DATA for a folder without PNGs.
 */
export async function planJobs(input: string, output: string): Promise<Job[]> {
  const found = await stat(input).catch((cause) => {
    throw ioError("read the image or folder", input, cause);
  });
  const namesFile = /\.png$/i.test(output) && !(await isFolder(output));
  if (found.isDirectory() && namesFile) {
    const fix = "Name a folder; it is made if need be.";
    throw expected("ERR_USAGE", "--output", `a folder, as ${input} is one`, `"${output}"`, fix);
  }
  const sources = found.isDirectory() ? await listImages(input) : [input];
  const jobs = sources.map((path) => ({
    in: path,
    out: namesFile ? output : join(output, basename(path)),
  }));
  const real = (path: string): Promise<string | null> => realpath(path).catch(() => null);
  for (const job of jobs) {
    const target = await real(job.out);
    if (target !== null && target === (await real(job.in))) {
      const fix = "Choose another file or folder.";
      throw expected("ERR_USAGE", "--output", "a place other than the input's", job.out, fix);
    }
  }
  return jobs;
}

export const command = defineCommand({
  name: "upscale",
  summary: "enlarge an image or a folder of images",
  usage: "IN.png|DIR -o OUT --model M [--tile auto] [--max-memory SIZE]",
  positionals: { min: 1, max: 1, help: "IN.png or DIR, a PNG file or a folder of them" },
  options: [
    {
      name: "output",
      short: "o",
      type: "string",
      required: true,
      value: "OUT",
      help: "a .png file, or a folder (made if need be)",
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
    ...routingOptions,
    deviceOption,
  ],
  async run(ctx) {
    const { options, signal } = ctx;
    const tile = parseTile(options.tile);
    const { routing, seed } = options as { routing: "sampled" | "argmax"; seed: number };
    const jobs = await planJobs(ctx.positionals[0], options.output);
    const maxMemory = options["max-memory"];
    const device = options.device as DeviceChoice;
    using upscaler = await Upscaler.load(options.model, { tile, routing, seed, maxMemory, device });
    const { scale, bits } = upscaler;
    // Every image is read once before the first is run: a bad one must not end hours of work.
    let only: RasterImage | null = null;
    for (const job of jobs) {
      signal.throwIfAborted();
      const image = await upscaler.read(job.in);
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
      const saved = await upscaler.save(image, job.out, { signal, onProgress });
      const seconds = (performance.now() - started) / 1000;
      const { width, height, tiling } = saved;
      images.push({ ...job, width, height, tile: tiling, seconds });
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
      device: upscaler.device,
      backend: upscaler.device === "cuda" ? "cuda" : native().backendName(),
      seconds: (performance.now() - began) / 1000,
    });
  },
});
