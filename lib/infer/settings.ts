/** What callers of {@link Upscaler} may choose, what it tells them, and the checks at its door. */
import type { DeviceChoice } from "../device.ts";
import { expected, type Spr2qError } from "../errors.ts";
import type { ImageShape } from "../io/png.ts";
import { checkRaster, type RasterImage } from "../io/raster.ts";
import type { RoutingMode } from "../nn/routing.ts";
import type { TileChoice } from "./budget.ts";
import type { Tiling } from "./tiles.ts";

/** Samples a result of run() may have: 2^28 are as many as the largest PNG read here. */
export const MAX_RESULT_SAMPLES: number = 2 ** 28;
/** Least side in pixels: one row or column shows no gradient that could be continued. */
export const LEAST_SIDE = 2;

/** What {@link Upscaler.load} fixes for every run, unless a run says otherwise. */
export interface UpscalerOptions {
  /** How images are cut: "auto" (the default), "none", "official", or a side in pixels. */
  readonly tile?: TileChoice;
  /** Default "sampled", which the published numbers need. Networks without routing ignore it. */
  readonly routing?: RoutingMode;
  /** Seed of the sampled routing; default 0. The same seed gives the same pixels. */
  readonly seed?: number;
  /**
   * Bytes that a run may hold beside the model: ERR_OUT_OF_MEMORY where it needs more, and "auto"
   * is the largest tile that fits. Default: what the system can give, and "auto" goes by size.
   */
  readonly maxMemory?: number;
}

/** Options of {@link Upscaler.load}. */
export interface LoadOptions extends UpscalerOptions {
  /** Threads of the kernels, from now on and for all models of the process; see setThreads(). */
  readonly threads?: number;
  /**
   * Default "auto": the GPU where there is one that can be used, else the CPU. "cuda" where there is
   * none is ERR_GPU_UNAVAILABLE, with the reason; nothing moves to the CPU by itself.
   */
  readonly device?: DeviceChoice;
  /** Gives up before the model is ready: ERR_ABORTED. */
  readonly signal?: AbortSignal;
}

/** Options of one run. */
export interface UpscaleOptions extends UpscalerOptions {
  /** Stops the run: ERR_ABORTED at once, whether it waits or works. */
  readonly signal?: AbortSignal;
  /**
   * Called with the share of the image done: 0 when the work begins, 1 at its end, between them at
   * most 20 times a second. What it throws ends the run.
   */
  readonly onProgress?: (share: number) => void;
}

/** Options of {@link Upscaler.run}. */
export interface RunImageOptions extends UpscaleOptions {
  /**
   * Where the samples of the result go instead of into a new array: of the image's depth, exactly
   * (scale x width) x (scale x height) x channels long. Its contents are undefined after a failure.
   */
  readonly out?: Uint8Array | Uint16Array;
}

/** What {@link Upscaler.save} did. */
export interface Saved {
  /** Columns of the result, in pixels. */
  readonly width: number;
  /** Rows of the result, in pixels. */
  readonly height: number;
  /** How the image was cut. */
  readonly tiling: Tiling;
}

/** Finished rows of a result, all channels interleaved. */
export interface Band {
  /** First row in the result, from 0. */
  readonly y: number;
  /** How many rows, each `scale` times as wide as the image. */
  readonly height: number;
  /** Samples of those rows; the receiver's to keep. */
  readonly data: Uint8Array | Uint16Array;
}

/** What {@link Upscaler.stats} tells. */
export interface Stats {
  /** Runs that wait for their turn. */
  readonly queued: number;
  /** The run that has its turn: 0 or 1. */
  readonly running: number;
  /** Runs that came to their end. */
  readonly finished: number;
  /** Most bytes of work that plans of this process held at once so far; weights are not counted. */
  readonly peakBytes: number;
  /** Milliseconds per million pixels of results so far, waiting left out; null before the first. */
  readonly msPerMegapixel: number | null;
  /** Where the network runs. */
  readonly device: string;
  /** Instruction set of the kernels: "avx512", "avx2", "neon", ... */
  readonly isa: string;
  /** Bits of weights and activations; 32 for a float model. */
  readonly bits: number;
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
  checkBorrowed(image.data, name);
  checkSides(image, name);
  const { width, height } = image;
  if (whole && width * height * 3 * scale ** 2 > MAX_RESULT_SAMPLES) {
    const most = Math.floor(MAX_RESULT_SAMPLES / 3 / scale ** 2);
    const fix = "Write it to a file with save(), or cut it into parts.";
    const got = `${width}x${height}`;
    throw expected("ERR_IMAGE", name, `at most ${most} pixels at x${scale}`, got, fix);
  }
}

/** ERR_IMAGE unless both sides are whole and large enough. */
export function checkSides({ width, height }: ImageShape, name = "image"): void {
  if (Number.isInteger(width) && Number.isInteger(height)) {
    if (Math.min(width, height) >= LEAST_SIDE) return;
  }
  const fix = "Repeat its row or column first: a single one holds nothing to reconstruct.";
  const wanted = `sides of at least ${LEAST_SIDE} pixels`;
  throw expected("ERR_IMAGE", name, wanted, `${width}x${height}`, fix);
}

/** ERR_IMAGE for an array that may lose its memory while a run looks at it. */
function checkBorrowed(data: ArrayBufferView, name: string): void {
  if (!(data.buffer as { readonly resizable?: boolean }).resizable) return;
  const fix = "Copy it first: data.slice().";
  throw expected("ERR_IMAGE", `${name}: data`, "an array of fixed length", "a resizable one", fix);
}

/** ERR_SHAPE unless `out` can hold the samples of a result of `shape`. */
export function checkOut(out: Uint8Array | Uint16Array, shape: ImageShape): void {
  const { width, height, channels, depth } = shape;
  const fits = depth === 8 ? out instanceof Uint8Array : out instanceof Uint16Array;
  const length = width * height * channels;
  checkBorrowed(out, "out");
  if (fits && out.length === length) return;
  const wanted = `a Uint${depth}Array of ${length} samples (${width}x${height}x${channels})`;
  throw expected("ERR_SHAPE", "out", wanted, `${out.length} (${out.constructor.name})`);
}

/** ERR_ARGUMENT unless it is a limit. */
export function checkLimit(maxMemory: number | undefined): void {
  if (maxMemory === undefined || maxMemory > 0) return;
  throw expected("ERR_ARGUMENT", "maxMemory", "a number of bytes above 0", `${maxMemory}`);
}

/** What a run goes by: its own options before those of load(), before the defaults. */
export function settled(
  before: UpscalerOptions,
  options: UpscalerOptions,
): Required<Omit<UpscalerOptions, "maxMemory">> & { readonly maxMemory: number | undefined } {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  const chosen: UpscalerOptions = { ...before, ...Object.fromEntries(entries) };
  const { tile = "auto", routing = "sampled", seed = 0, maxMemory } = chosen;
  checkLimit(maxMemory);
  return { tile, routing, seed, maxMemory };
}

/** Error of whatever is called after dispose(). */
export function disposed(): Spr2qError {
  const fix = "Load the model again with Upscaler.load().";
  return expected("ERR_DISPOSED", "upscaler", "one in use", "one after dispose()", fix);
}
