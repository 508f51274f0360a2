/** PSNR and SSIM of a model (or of bicubic interpolation) on a folder, by the SR protocol. */
import { type LoadedPair, loadPair, pairImages } from "../io/images.ts";
import { fromRgbFloat, type RasterImage, toRgbFloat } from "../io/png.ts";
import { bicubicLumaPsnr } from "../metrics/bicubic_luma.ts";
import { psnrY } from "../metrics/psnr.ts";
import { bicubicResize } from "../metrics/resize.ts";
import { ssimY } from "../metrics/ssim.ts";
import { chosenDevice, type DeviceChoice } from "../device.ts";
import { stopped } from "../errors.ts";
import { EventRun } from "../events.ts";
import type { RoutingMode } from "../nn/routing.ts";
import { type Model, openModel } from "./model.ts";
import { type RunOptions, TileRunner, type Tiling } from "./tiles.ts";

/** Quality of one image. */
export interface ImageScore {
  /** Name of its file. */
  readonly name: string;
  /** dB on Y; see {@link psnrY}. */
  readonly psnr: number;
  /** At most 1, on Y; see {@link ssimY}. */
  readonly ssim: number;
}

/** Means over a folder, and each image. */
export interface Evaluation {
  /** Mean dB on Y. */
  readonly psnr: number;
  /** Mean SSIM on Y. */
  readonly ssim: number;
  /** Bicubic only: mean dB on luma alone, the protocol of published bicubic rows. */
  readonly psnrLuma?: number;
  /** Each image, in the order of their names. */
  readonly images: readonly ImageScore[];
  /** Seconds from the first image to the last, reading and measuring included. */
  readonly seconds: number;
}

/** Gives the SR image of an LR image. */
export type Upscale = (lr: RasterImage) => RasterImage | Promise<RasterImage>;

/** One image was measured. */
export interface ScoreEvent extends ImageScore {
  /** The only kind of event. */
  readonly type: "image";
  /** Images measured, this one included, of `total`. */
  readonly done: number;
  /** Images of the folder. */
  readonly total: number;
}

/** What {@link evaluate} is told. */
export interface EvaluateOptions {
  /** Folder of high-resolution PNGs. */
  readonly hr: string;
  /** Folder of their low-resolution twins; made by MATLAB's bicubic where it is left out. */
  readonly lr?: string;
  /** Default "none": whole images, as published. */
  readonly tile?: Tiling;
  /** Default "sampled", which the published numbers need. */
  readonly routing?: RoutingMode;
  /** Seed of the sampled routing; default 0. */
  readonly seed?: number;
  /** Default "auto"; see LoadOptions of the upscaler. */
  readonly device?: DeviceChoice;
  /** Ends it, in the middle of an image too: ERR_ABORTED. */
  readonly signal?: AbortSignal;
}

/**
 * PSNR (dB) and SSIM of a model on a folder, by the SR protocol: on Y of 8-bit images, `scale` border
 * pixels left out. `source` is a model file, an opened model, or `{ bicubic: scale }` for bicubic
 * interpolation. Await the means, or go through the images first (events "image"). Rejects with
 * ERR_DATA for a folder without images or twins, ERR_IMAGE, ERR_IO, ERR_ABORTED, and those of
 * {@link openModel}.
 */
export function evaluate(
  source: string | Model | { readonly bicubic: number },
  options: EvaluateOptions,
): EventRun<ScoreEvent, Evaluation> {
  const { hr, lr, tile = "none", routing = "sampled", seed = 0, signal } = options;
  const run = async function* (): AsyncGenerator<ScoreEvent, Evaluation> {
    const bicubic = typeof source === "object" && "bicubic" in source ? source.bicubic : null;
    const model = typeof source === "string" ? await openModel(source) : (source as Model);
    const scale = bicubic ?? model.net.config.scale;
    const device = chosenDevice(options.device ?? "auto");
    const how = { tiling: tile, routing, seed, signal, device };
    return yield* scoreFolder(bicubic ? null : model, scale, hr, lr, how);
  };
  return new EventRun(run());
}

/** How images are run, and where. */
export interface ScoreOptions extends RunOptions {
  /** Default "cpu". */
  readonly device?: "cpu" | "cuda";
}

/**
 * Upscales the LR twin of each HR image and compares on the Y channel of 8-bit images, `scale`
 * border pixels left out. `model` null means bicubic interpolation. LR images come from `lrDir`, or
 * are made by MATLAB's bicubic. Rejects as {@link evaluate} does.
 */
export async function evaluateFolder(
  model: Model | null,
  scale: number,
  hrDir: string,
  lrDir: string | undefined,
  options: ScoreOptions,
): Promise<Evaluation> {
  return drain(scoreFolder(model, scale, hrDir, lrDir, options), options);
}

/** As {@link evaluateFolder}, by any `upscale`. */
export async function evaluateBy(
  upscale: Upscale,
  scale: number,
  hrDir: string,
  lrDir: string | undefined,
  options: Pick<RunOptions, "signal" | "onProgress">,
): Promise<Evaluation> {
  return drain(scoreBy(upscale, scale, hrDir, lrDir, options.signal), options);
}

async function drain(
  scores: AsyncGenerator<ScoreEvent, Evaluation>,
  { onProgress }: Pick<RunOptions, "onProgress">,
): Promise<Evaluation> {
  let step = await scores.next();
  for (; !step.done; step = await scores.next()) onProgress?.(step.value.done / step.value.total);
  return step.value;
}

async function* scoreFolder(
  model: Model | null,
  scale: number,
  hrDir: string,
  lrDir: string | undefined,
  options: ScoreOptions,
): AsyncGenerator<ScoreEvent, Evaluation> {
  const { signal } = options;
  if (!model) {
    const lumas: number[] = [];
    const each = (hr: LoadedPair["hr"]): void => void lumas.push(bicubicLumaPsnr(hr, scale));
    const upscale: Upscale = (lr) => bicubic(lr, scale);
    const result = yield* scoreBy(upscale, scale, hrDir, lrDir, signal, each);
    return { ...result, psnrLuma: lumas.reduce((sum, one) => sum + one, 0) / lumas.length };
  }
  const runner = new TileRunner(model, options.device);
  try {
    const upscale: Upscale = (lr) => upscaleRgb(runner, lr, options);
    return yield* scoreBy(upscale, scale, hrDir, lrDir, signal);
  } finally {
    runner.release();
  }
}

/** Scores by any `upscale`; `each` sees every HR image. */
async function* scoreBy(
  upscale: Upscale,
  scale: number,
  hrDir: string,
  lrDir: string | undefined,
  signal: AbortSignal | undefined,
  each?: (hr: LoadedPair["hr"]) => void,
): AsyncGenerator<ScoreEvent, Evaluation> {
  const began = performance.now();
  const images: ImageScore[] = [];
  const pairs = await pairImages(hrDir, lrDir ?? null, scale);
  for (const pair of pairs) {
    if (signal?.aborted) throw stopped("Evaluation", signal);
    const { hr, lr }: LoadedPair = await loadPair(pair, scale);
    const sr = await upscale(lr);
    const score = { name: pair.name, psnr: psnrY(sr, hr, scale), ssim: ssimY(sr, hr, scale) };
    images.push(score);
    each?.(hr);
    yield { type: "image", ...score, done: images.length, total: pairs.length };
  }
  const mean = (key: "psnr" | "ssim"): number =>
    images.reduce((sum, image) => sum + image[key], 0) / images.length;
  return {
    psnr: mean("psnr"),
    ssim: mean("ssim"),
    images,
    seconds: (performance.now() - began) / 1000,
  };
}

/** Runs an image through the network as 8-bit RGB: clamp and round half to even at the end. */
export async function upscaleRgb(
  runner: TileRunner,
  lr: RasterImage,
  options: RunOptions,
): Promise<RasterImage> {
  const data = Float32Array.from(toRgbFloat(lr));
  const { onProgress: _, ...quiet } = options;
  const out = await runner.run({ data, width: lr.width, height: lr.height }, quiet);
  return fromRgbFloat(out.data, out.width, out.height, 8);
}

function bicubic(lr: RasterImage, scale: number): RasterImage {
  const { data, width, height } = bicubicResize(
    lr.data as Uint8Array,
    lr.width,
    lr.height,
    3,
    scale,
  );
  return { data, width, height, channels: 3, depth: 8 };
}
