/**
 * How much memory an image needs, known before any of it is taken, and the tiling that stays within
 * a number of bytes. Weights are not counted, in whatever layout plans keep them.
 *
 * Without a limit, the tiling goes by the size of the image alone, so that a command gives the same
 * pixels on every machine, and a run is refused where the system has less memory than it needs. A
 * limit chooses the tiling as well: "auto" is then the largest tile that fits, the whole image first.
 */
import { freemem } from "node:os";
import { expected, type Spr2qError } from "../errors.ts";
import { decodeBytes, type ImageShape } from "../io/png.ts";
import { pngWriterBytes } from "../io/png_writer.ts";
import { FILL_BYTES } from "./alpha.ts";
import { spareOutput } from "./plan.ts";
import {
  type Layout,
  layoutOf,
  type Routing,
  type Span,
  type TileRunner,
  type Tiling,
} from "./tiles.ts";

/**
 * LR pixels up to which "auto" runs an image whole, as the published numbers were taken: a plan for
 * 512x512 pixels of MambaIRv2-light needs 500 MiB, which most machines spare; memory grows with the
 * pixels, so larger ones are cut.
 */
export const AUTO_WHOLE_PIXELS: number = 512 * 512;
/** Side in LR pixels near which "auto" cuts larger images: 180 MiB a tile, a fifth of it overlap. */
export const AUTO_TILE_SIDE = 256;
/** Least side that a limit may lead to: below it, seams show and overlap is most of the work. */
export const LEAST_AUTO_TILE = 64;
/** Sides that a limit may lead to are multiples of this many LR pixels. */
const SIDE_STEP = 8;
/** Windows a side of the plan from whose arena those of other sizes are told. */
const PROBE_WINDOWS = 4;
/**
 * Threads whose scratch is counted. A fixed number, since pixels must not depend on the machine;
 * where there are more, each adds about 2 MiB that is not counted.
 */
const COUNTED_THREADS = 16;
/** Bytes of a thread's scratch: tile of a segment and packed panels; then rows of the image. */
const SCRATCH = { fixed: 2 ** 20, rows: 8 } as const;
/** Rows by which a band of a convolution (bands.ts) may be more than its share of a low image. */
const HALO_ROWS = 3;
/** What Node itself grows by: its heap, buffers on their way through zlib and to the file. */
const RUNTIME_BYTES = 48 * 2 ** 20;

/** How an image is cut: by its size and the memory ("auto"), or as {@link Tiling} says. */
export type TileChoice = "auto" | Tiling;

/** A tiling, and the bytes that a run with it holds at once. */
export interface Fit {
  readonly tiling: Tiling;
  readonly bytes: number;
}

/** The tiling by size alone. */
export function chooseTiling(tile: TileChoice, width: number, height: number): Tiling {
  if (tile !== "auto") return tile;
  return width * height <= AUTO_WHOLE_PIXELS ? "none" : AUTO_TILE_SIDE;
}

/** Size and kind of a result. */
export function enlarged(image: ImageShape, scale: number): ImageShape {
  const { width, height, channels, depth } = image;
  return { width: width * scale, height: height * scale, channels, depth };
}

/** Bytes that saving a result holds beside the work of strips: what the image was decoded from, too. */
export function savingBytes(image: ImageShape, scale: number): number {
  return decodeBytes(image) + pngWriterBytes(enlarged(image, scale));
}

/** Tells the memory of runs of one model. */
export class Budget {
  readonly #runner: TileRunner;
  /** Arena bytes a pixel of whole windows, of plans that may use their output's bytes or not. */
  readonly #perPixel = new Map<boolean, number>();

  constructor(runner: TileRunner) {
    this.#runner = runner;
  }

  /**
   * The tiling for an image, `held` bytes being needed beside the tiles' work. ERR_OUT_OF_MEMORY
   * where it, or even the smallest tile, needs more than `limit` (undefined: what the system has).
   */
  fit(
    image: ImageShape,
    choice: TileChoice,
    routing: Routing,
    held: number,
    limit: number | undefined,
  ): Fit {
    const { width, height } = image;
    const need = (tiling: Tiling): Fit => ({
      tiling,
      bytes:
        held + this.#work(image, layoutOf(this.#runner.model.net, width, height, tiling), routing),
    });
    const most = limit ?? availableMemory();
    let found = need(chooseTiling(choice, width, height));
    if (limit !== undefined && choice === "auto") found = largestFit(width, height, need, limit);
    if (found.bytes <= most) return found;
    throw refusal(image, choice, found, limit);
  }

  /** Bytes of the work on an image: one tile, one strip of samples, alpha, and the surroundings. */
  #work(image: ImageShape, layout: Layout, routing: Routing): number {
    const { net } = this.#runner.model;
    const { scale } = net.config;
    const sample = image.depth / 8;
    const [width, height] = [longest(layout.columns), longest(layout.rows)];
    const tile =
      this.arenaBytes(width, height, routing) +
      width * height * 12 * (1 + scale ** 2) +
      COUNTED_THREADS * (SCRATCH.fixed + SCRATCH.rows * width * net.config.channels * 4);
    const kept = Math.max(...layout.rows.map((row) => row.keepTo - row.keepFrom));
    const alpha = image.channels % 2 === 0;
    const strip = image.width * kept * scale ** 2 * (image.channels + (alpha ? 1 : 0)) * sample;
    const planes = alpha ? FILL_BYTES + sample + image.channels * sample : 0;
    return tile + strip + planes * image.width * image.height + RUNTIME_BYTES;
  }

  /** Arena of a plan, in proportion to its pixels in whole windows: all values have one row a pixel. */
  arenaBytes(width: number, height: number, routing: Routing): number {
    const { net } = this.#runner.model;
    const { window, channels } = net.config;
    const side = PROBE_WINDOWS * window;
    const whole = (n: number): number => Math.ceil(n / window) * window;
    const spare = spareOutput(net, width, height) > 0;
    let perPixel = this.#perPixel.get(spare);
    if (perPixel === undefined) {
      const rows = spare ? side : side - Math.floor(window / 2);
      perPixel = this.#runner.plan(side, rows, routing).arenaBytes / side ** 2;
      this.#perPixel.set(spare, perPixel);
    }
    return Math.ceil(
      perPixel * whole(width) * whole(height) + HALO_ROWS * whole(width) * channels * 4,
    );
  }
}

function longest(spans: readonly Span[]): number {
  return Math.max(...spans.map((span) => span.to - span.from));
}

/** The whole image, or the largest tile that needs at most `limit` bytes, or else the smallest. */
function largestFit(
  width: number,
  height: number,
  need: (tiling: Tiling) => Fit,
  limit: number,
): Fit {
  let fit = need("none");
  const side = Math.max(width, height);
  const below = (n: number): number => (Math.ceil(n / SIDE_STEP) - 1) * SIDE_STEP;
  for (let tile = below(side); fit.bytes > limit && tile >= LEAST_AUTO_TILE; tile = below(tile)) {
    fit = need(tile);
  }
  return fit;
}

/** Bytes that the system could give now; those of a container's limit where there is one. */
function availableMemory(): number {
  return process.availableMemory?.() ?? freemem();
}

/** "700 MiB" or "2.5 GiB", rounded up. */
function mebibytes(bytes: number): string {
  const mib = Math.ceil(bytes / 2 ** 20);
  return mib < 2048 ? `${mib} MiB` : `${(Math.ceil(mib / 102.4) / 10).toFixed(1)} GiB`;
}

function refusal(
  { width, height }: ImageShape,
  choice: TileChoice,
  { tiling, bytes }: Fit,
  limit: number | undefined,
): Spr2qError {
  const cut = { none: "as a whole", official: "by the official rule" };
  const how = typeof tiling === "number" ? `in tiles of ${tiling}` : cut[tiling];
  const what = `memory for ${width}x${height} pixels ${how}`;
  const got = limit === undefined ? `${mebibytes(availableMemory())} free` : mebibytes(limit);
  const fix =
    choice !== "auto"
      ? "Name a smaller tile, or auto and a maximum of memory: it takes the largest that fits."
      : limit === undefined
        ? "Set a maximum of memory: the largest tile that fits is then taken."
        : "This is the smallest tile: raise the maximum, or cut the image into parts.";
  return expected("ERR_OUT_OF_MEMORY", what, mebibytes(bytes), got, fix);
}
