/**
 * Enlarges images of any kind that PNG knows with one model, as a whole (run) or strip by strip into
 * a file (save). Images smaller than half a window are mirrored up to it, and the result is cropped
 * again. How kinds of images are handled: strips.ts; how much memory it takes: budget.ts.
 */
import { chosenDevice, type DeviceChoice } from "../device.ts";
import { expected, Spr2qError } from "../errors.ts";
import { fillFileAtomic } from "../io/files.ts";
import { decodeBytes, type ImageShape, outlinePng, readPng } from "../io/png.ts";
import { pngWriterBytes, writePng } from "../io/png_writer.ts";
import { checkRaster, type RasterImage } from "../io/raster.ts";
import type { RoutingMode } from "../nn/routing.ts";
import { Budget, type TileChoice } from "./budget.ts";
import { type Model, openModel } from "./model.ts";
import { samples, strips } from "./strips.ts";
import { type RunOptions, type Tiling, TileRunner } from "./tiles.ts";

/** Samples a result of run() may have: 2^28 are as many as the largest PNG read here. */
export const MAX_RESULT_SAMPLES: number = 2 ** 28;
/** Least side in pixels: one row or column shows no gradient that could be continued. */
export const LEAST_SIDE = 2;

/** What {@link Upscaler.load} fixes for every run, unless a run says otherwise. */
export interface UpscalerOptions {
  /** Default "auto". */
  readonly tile?: TileChoice;
  /** Default "sampled", which the published numbers need. */
  readonly routing?: RoutingMode;
  /** Seed of the sampled routing; default 0. The same seed gives the same pixels. */
  readonly seed?: number;
  /**
   * Bytes that a run may hold beside the model: ERR_OUT_OF_MEMORY where it needs more, and "auto"
   * is the largest tile that fits. Default: what the system can give, and "auto" goes by size.
   */
  readonly maxMemory?: number;
}

/** What {@link Upscaler.load} fixes for good. */
export interface LoadOptions extends UpscalerOptions {
  /**
   * Default "auto": the GPU where there is one that can be used, else the CPU. "cuda" where there is
   * none is ERR_GPU_UNAVAILABLE, with the reason.
   */
  readonly device?: DeviceChoice;
}

/** Options of one run. */
export interface UpscaleOptions extends UpscalerOptions {
  readonly signal?: AbortSignal;
  /** Called after each tile with the share of the image done, 0 to 1. */
  readonly onProgress?: (share: number) => void;
}

/** What {@link Upscaler.save} did. */
export interface Saved {
  /** Sides of the result in pixels. */
  readonly width: number;
  readonly height: number;
  /** How the image was cut. */
  readonly tiling: Tiling;
}

/**
 * ERR_IMAGE unless `image` is sound, two pixels or more a side, and (unless it goes to a file strip
 * by strip) its result not too large.
 */
export function checkUpscalable(
  image: RasterImage,
  scale: number,
  name = "image",
  whole = true,
): void {
  checkRaster(image, name);
  const { width, height } = image;
  const got = `${width}x${height}`;
  if (Math.min(width, height) < LEAST_SIDE) {
    const fix = "Repeat its row or column first: a single one holds nothing to reconstruct.";
    throw expected("ERR_IMAGE", name, `sides of at least ${LEAST_SIDE} pixels`, got, fix);
  }
  if (whole && width * height * 3 * scale ** 2 > MAX_RESULT_SAMPLES) {
    const most = Math.floor(MAX_RESULT_SAMPLES / 3 / scale ** 2);
    const fix = "Write it to a file with save(), or cut it into parts.";
    throw expected("ERR_IMAGE", name, `at most ${most} pixels at x${scale}`, got, fix);
  }
}

/** A model ready to enlarge images. Call `dispose()` (or declare it with `using`) when done. */
export class Upscaler {
  /** Where it runs. */
  readonly device: "cpu" | "cuda";
  /** What the model's file says; null once disposed. */
  #model: Model | null;
  readonly #defaults: UpscalerOptions;
  #runner: TileRunner | null;
  #budget: Budget | null;
  readonly #running = new Set<AbortController>();

  constructor(model: Model, options: LoadOptions = {}) {
    this.#model = model;
    this.device = chosenDevice(options.device ?? "auto");
    this.#runner = new TileRunner(model, this.device);
    this.#budget = new Budget(this.#runner);
    this.#defaults = options;
    checkLimit(options.maxMemory);
  }

  /** Opens a model file of any kind; errors are those of {@link openModel}. */
  static async load(path: string, options: LoadOptions = {}): Promise<Upscaler> {
    checkLimit(options.maxMemory);
    chosenDevice(options.device ?? "auto"); // before the file is read
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
   * ERR_IMAGE for an image that is damaged, too small or too large, ERR_OUT_OF_MEMORY before
   * anything is allocated (the image itself is not counted, the result is), ERR_ABORTED once
   * `signal` fires, ERR_DISPOSED where dispose() came first.
   */
  async run(image: RasterImage, options: UpscaleOptions = {}): Promise<RasterImage> {
    const { scale } = this;
    checkUpscalable(image, scale);
    return this.#guarded(options, async (runner, signal) => {
      const shape = enlarged(image, scale);
      const length = shape.width * shape.height * shape.channels;
      const settings = this.#settings(image, (length * shape.depth) / 8, options, signal);
      const data = samples(length, shape.depth);
      for await (const strip of strips(runner, image, settings)) {
        data.set(strip.data, strip.y * shape.width * shape.channels);
      }
      return { ...shape, data };
    });
  }

  /**
   * Reads a PNG that save() can enlarge. Throws ERR_OUT_OF_MEMORY by its header where save() would,
   * before it is decoded, and else as {@link readPng} and {@link checkUpscalable}.
   */
  async read(path: string, options: UpscalerOptions = {}): Promise<RasterImage> {
    const outline = await outlinePng(path);
    if (outline) this.#settings(outline, savingBytes(outline, this.scale), options);
    const image = await readPng(path);
    checkUpscalable(image, this.scale, path, false);
    return image;
  }

  /**
   * Enlarges an image into a PNG file, strip by strip: the same pixels as those of run() with the
   * same tiles, however large. The file appears when it is complete; nothing is left behind
   * otherwise. Throws as run() does (the image and what decoding it took are counted, the result is
   * not), and ERR_IO.
   */
  async save(image: RasterImage, path: string, options: UpscaleOptions = {}): Promise<Saved> {
    const { scale } = this;
    checkUpscalable(image, scale, "image", false);
    return this.#guarded(options, async (runner, signal) => {
      const settings = this.#settings(image, savingBytes(image, scale), options, signal);
      const shape = enlarged(image, scale);
      const rows = async function* () {
        for await (const strip of strips(runner, image, settings)) yield strip.data;
      };
      await fillFileAtomic(path, (append) => writePng(shape, rows(), append));
      return { width: shape.width, height: shape.height, tiling: settings.tiling };
    });
  }

  /** Stops what is running (ERR_DISPOSED there) and lets the model go. May be called again. */
  dispose(): void {
    this.#model = null;
    this.#runner = null;
    this.#budget = null;
    for (const controller of this.#running) controller.abort();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Runs `body` so that `signal` and dispose() stop it, and its tiles stop with it. */
  async #guarded<T>(
    options: UpscaleOptions,
    body: (runner: TileRunner, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    if (!this.#runner) throw disposed();
    const controller = new AbortController();
    const stop = (): void => controller.abort(options.signal?.reason);
    if (options.signal?.aborted) stop();
    options.signal?.addEventListener("abort", stop, { once: true });
    this.#running.add(controller);
    try {
      controller.signal.throwIfAborted();
      return await body(this.#runner, controller.signal);
    } catch (cause) {
      if (!controller.signal.aborted) throw cause;
      if (!this.#model) throw disposed();
      throw new Spr2qError("ERR_ABORTED", "Upscaling was stopped before its end.", { cause });
    } finally {
      options.signal?.removeEventListener("abort", stop);
      this.#running.delete(controller);
      controller.abort(); // a tile may still run where writing its rows failed
    }
  }

  /** Tiling and routing of one run that holds `held` bytes beside its work. */
  #settings(
    image: ImageShape,
    held: number,
    options: UpscaleOptions,
    signal?: AbortSignal,
  ): RunOptions {
    const {
      tile = "auto",
      routing = "sampled",
      seed = 0,
      maxMemory,
    } = {
      ...this.#defaults,
      ...defined(options),
    };
    checkLimit(maxMemory);
    const how = { routing, seed };
    if (!this.#budget) throw disposed();
    const { tiling } = this.#budget.fit(image, tile, how, held, maxMemory);
    return { ...how, tiling, signal, onProgress: options.onProgress };
  }
}

/** `options` without entries that are undefined. */
function defined<T extends object>(options: T): Partial<T> {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<T>;
}

function checkLimit(maxMemory: number | undefined): void {
  if (maxMemory === undefined || maxMemory > 0) return;
  throw expected("ERR_ARGUMENT", "maxMemory", "a number of bytes above 0", `${maxMemory}`);
}

/** Bytes that save() holds beside the work of strips. */
function savingBytes(image: ImageShape, scale: number): number {
  return decodeBytes(image) + pngWriterBytes(enlarged(image, scale));
}

/** Size and kind of the result. */
function enlarged({ width, height, channels, depth }: ImageShape, scale: number): ImageShape {
  return { width: width * scale, height: height * scale, channels, depth };
}

function disposed(): Spr2qError {
  const fix = "Load the model again with Upscaler.load().";
  return expected("ERR_DISPOSED", "upscaler", "one in use", "one after dispose()", fix);
}
