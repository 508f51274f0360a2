/**
 * Enlarges images of any kind that PNG knows with one model: depth in = depth out, grey stays grey
 * (run as RGB, the mean of the three results), alpha is kept (lib/infer/alpha.ts). Images smaller
 * than half a window are mirrored up to it, and the result is cropped again.
 */
import type { F32 } from "../binding.ts";
import { expected, Spr2qError } from "../errors.ts";
import { checkRaster, type RasterImage, roundHalfEven, toRgbFloat } from "../io/raster.ts";
import type { RoutingMode } from "../nn/routing.ts";
import { alphaPlane, constantValue, fillTransparent, hasAlpha, keepFlat } from "./alpha.ts";
import { cropTo, mirrorTo } from "./mirror.ts";
import { type Model, openModel } from "./model.ts";
import { type Tiling, TileRunner } from "./tiles.ts";

/**
 * LR pixels up to which "auto" runs an image whole, as the published numbers were taken: a plan for
 * 512x512 pixels of MambaIRv2-light needs 340 MiB, which any machine spares; memory grows with the
 * pixels, so larger ones are cut.
 */
export const AUTO_WHOLE_PIXELS: number = 512 * 512;
/** Side in LR pixels near which "auto" cuts larger images: 85 MiB a tile, a fifth of it overlap. */
export const AUTO_TILE_SIDE = 256;
/** Samples a result may have: 2^28 floats are 1 GiB, as much as the largest PNG read here. */
export const MAX_RESULT_SAMPLES: number = 2 ** 28;
/** Least side in pixels: one row or column shows no gradient that could be continued. */
export const LEAST_SIDE = 2;

/** How an image is cut: by its size ("auto"), or as {@link Tiling} says. */
export type TileChoice = "auto" | Tiling;

/** What {@link Upscaler.load} fixes for every run, unless a run says otherwise. */
export interface UpscalerOptions {
  /** Default "auto". */
  readonly tile?: TileChoice;
  /** Default "sampled", which the published numbers need. */
  readonly routing?: RoutingMode;
  /** Seed of the sampled routing; default 0. The same seed gives the same pixels. */
  readonly seed?: number;
}

/** Options of one run. */
export interface UpscaleOptions extends UpscalerOptions {
  readonly signal?: AbortSignal;
  /** Called after each tile with the share of the image done, 0 to 1. */
  readonly onProgress?: (share: number) => void;
}

/** The tiling of an image of width x height LR pixels. */
export function chooseTiling(tile: TileChoice, width: number, height: number): Tiling {
  if (tile !== "auto") return tile;
  return width * height <= AUTO_WHOLE_PIXELS ? "none" : AUTO_TILE_SIDE;
}

/** ERR_IMAGE unless `image` is sound, two pixels or more a side, and its result not too large. */
export function checkUpscalable(image: RasterImage, scale: number, name = "image"): void {
  checkRaster(image, name);
  const { width, height } = image;
  const got = `${width}x${height}`;
  if (Math.min(width, height) < LEAST_SIDE) {
    const fix = "Repeat its row or column first: a single one holds nothing to reconstruct.";
    throw expected("ERR_IMAGE", name, `sides of at least ${LEAST_SIDE} pixels`, got, fix);
  }
  if (width * height * 3 * scale ** 2 > MAX_RESULT_SAMPLES) {
    const most = Math.floor(MAX_RESULT_SAMPLES / 3 / scale ** 2);
    const fix = "Cut it into parts and upscale them one by one.";
    throw expected("ERR_IMAGE", name, `at most ${most} pixels at x${scale}`, got, fix);
  }
}

/** A model ready to enlarge images. Call `dispose()` (or declare it with `using`) when done. */
export class Upscaler {
  /** What the model's file says; null once disposed. */
  #model: Model | null;
  readonly #defaults: Required<UpscalerOptions>;
  #runner: TileRunner | null;
  readonly #running = new Set<AbortController>();

  constructor(model: Model, options: UpscalerOptions = {}) {
    this.#model = model;
    this.#runner = new TileRunner(model);
    this.#defaults = {
      tile: options.tile ?? "auto",
      routing: options.routing ?? "sampled",
      seed: options.seed ?? 0,
    };
  }

  /** Opens a model file of any kind; errors are those of {@link openModel}. */
  static async load(path: string, options: UpscalerOptions = {}): Promise<Upscaler> {
    return new Upscaler(await openModel(path), options);
  }

  /** The model; ERR_DISPOSED after dispose(). */
  get model(): Model {
    if (!this.#model) throw disposed();
    return this.#model;
  }

  /** Factor by which both sides grow. */
  get scale(): number {
    return this.model.net.config.scale;
  }

  /** Bits of weights and activations; 32 for a float model. */
  get bits(): number {
    return this.model.quantised?.policy.bits ?? 32;
  }

  /**
   * The image `scale` times as large, with the same channels and depth. Runs may overlap. Throws
   * ERR_IMAGE for an image that is damaged, too small or too large, ERR_ABORTED once `signal` fires,
   * ERR_DISPOSED where dispose() came first.
   */
  async run(image: RasterImage, options: UpscaleOptions = {}): Promise<RasterImage> {
    const { scale } = this;
    checkUpscalable(image, scale);
    const controller = new AbortController();
    const stop = (): void => controller.abort(options.signal?.reason);
    if (options.signal?.aborted) stop();
    options.signal?.addEventListener("abort", stop, { once: true });
    this.#running.add(controller);
    try {
      controller.signal.throwIfAborted();
      return await this.#upscale(image, scale, { ...options, signal: controller.signal });
    } catch (cause) {
      if (!controller.signal.aborted) throw cause;
      if (!this.#model) throw disposed();
      throw new Spr2qError("ERR_ABORTED", "Upscaling was stopped before its end.", { cause });
    } finally {
      options.signal?.removeEventListener("abort", stop);
      this.#running.delete(controller);
    }
  }

  /** Stops what is running (ERR_DISPOSED there) and lets the model go. May be called again. */
  dispose(): void {
    this.#model = null;
    this.#runner = null;
    for (const controller of this.#running) controller.abort();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #upscale(image: RasterImage, scale: number, options: UpscaleOptions): Promise<RasterImage> {
    const alpha = hasAlpha(image) ? alphaPlane(image) : null;
    const constant = alpha && constantValue(alpha.data);
    const passes = alpha && constant === null ? 2 : 1;
    const runPass = (pass: number, part: RasterImage): Promise<F32> =>
      this.#pass(part, {
        ...options,
        onProgress: (s) => options.onProgress?.((pass + s) / passes),
      });
    const rgb = await runPass(0, passes === 2 ? fillTransparent(image) : image);
    const result = emptyResult(image, scale);
    const pixels = result.width * result.height;
    const peak = image.depth === 8 ? 255 : 65535;
    const { channels, data } = result;
    const colours = channels < 3 ? 1 : 3;
    const samples = toSamples(rgb, colours, peak);
    for (let i = 0; i < pixels; i++) {
      for (let c = 0; c < colours; c++) data[i * channels + c] = samples[i * colours + c];
    }
    if (!alpha) return result;
    let plane: Uint16Array | null = null;
    if (constant === null) {
      plane = toSamples(await runPass(1, alpha), 1, peak);
      keepFlat(alpha, plane, scale);
    }
    for (let i = 0; i < pixels; i++) {
      data[i * channels + colours] = plane ? plane[i] : (constant as number);
    }
    return result;
  }

  /** One image without alpha through the network: (scale*height, scale*width, 3) floats. */
  async #pass(image: RasterImage, options: UpscaleOptions): Promise<F32> {
    const { model } = this;
    if (!this.#runner) throw disposed();
    const { window, scale } = model.net.config;
    const { width, height } = image;
    const least = Math.ceil(window / 2);
    const data = toRgbFloat(image) as F32;
    const padded = mirrorTo(
      { data, width, height },
      Math.max(least, width),
      Math.max(least, height),
    );
    const upscaled = await this.#runner.run(padded, {
      tiling: chooseTiling(options.tile ?? this.#defaults.tile, padded.width, padded.height),
      routing: options.routing ?? this.#defaults.routing,
      seed: options.seed ?? this.#defaults.seed,
      signal: options.signal,
      onProgress: options.onProgress,
    });
    return cropTo(upscaled, width * scale, height * scale).data;
  }
}

function disposed(): Spr2qError {
  const fix = "Load the model again with Upscaler.load().";
  return expected("ERR_DISPOSED", "upscaler", "one in use", "one after dispose()", fix);
}

function emptyResult(image: RasterImage, scale: number): RasterImage {
  const [width, height] = [image.width * scale, image.height * scale];
  const count = width * height * image.channels;
  const data = image.depth === 8 ? new Uint8Array(count) : new Uint16Array(count);
  return { ...image, width, height, data };
}

/**
 * Samples of float RGB, clamped and rounded half to even as the evaluation does; one colour is the
 * mean of the three, which saw the same grey and differ only by the network's error.
 */
function toSamples(rgb: F32, colours: 1 | 3, peak: number): Uint16Array {
  const out = new Uint16Array((rgb.length / 3) * colours);
  for (let i = 0; i < out.length; i++) {
    const at = i * 3;
    const value = colours === 3 ? rgb[i] : (rgb[at] + rgb[at + 1] + rgb[at + 2]) / 3;
    if (Number.isNaN(value)) {
      const fix = "The model is damaged: spr2q inspect shows its bounds.";
      throw expected("ERR_CHECKPOINT", `output sample ${i}`, "a number", "NaN", fix);
    }
    out[i] = roundHalfEven(Math.fround(Math.min(Math.max(value, 0), 1) * peak));
  }
  return out;
}
