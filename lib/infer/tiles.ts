/**
 * Whole images through fixed-size plans: as one tile, by the official evaluation rule, or in tiles
 * of a given side. Tiles are independent: routing and scan see one tile at a time.
 */
import type { F32, I32 } from "../binding.ts";
import { expected } from "../errors.ts";
import type { Network } from "../models/network.ts";
import type { RoutingMode } from "../nn/routing.ts";
import { hasTokenRanges } from "../quant/policy.ts";
import { type FloatImage, floatPixels, mirrored, type PixelSource } from "./mirror.ts";
import type { Model } from "./model.ts";
import { Pauses, rowsAtOnce } from "../io/pause.ts";
import { Plan } from "./plan.ts";

/** "none": the whole image; "official": MambaIRv2's rule (sides from 200 up are split); or a side. */
export type Tiling = "none" | "official" | number;

/** What sampled and argmax routing need to know. */
export interface Routing {
  /** How tokens get their classes. */
  readonly routing: RoutingMode;
  /** Seed of the sampled routing. */
  readonly seed: number;
}

export interface RunOptions extends Routing {
  /** How images are cut. */
  readonly tiling: Tiling;
  /** Stops the run: ERR_ABORTED. */
  readonly signal?: AbortSignal;
  /** Called with the share done, 1 at the end; it must not throw. */
  readonly onProgress?: (share: number) => void;
}

/** A span of an axis in LR pixels: what the network sees, and what of it is kept. */
export interface Span {
  readonly from: number;
  readonly to: number;
  readonly keepFrom: number;
  readonly keepTo: number;
}

/** How an image of width x height LR pixels is cut. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly rows: readonly Span[];
  readonly columns: readonly Span[];
}

/** Spans of one axis: `count` equal parts with a tenth of overlap on inner sides (official rule). */
function spans(length: number, count: number): Span[] {
  const part = Math.ceil(length / count);
  const overlap = Math.floor(part / 10);
  return Array.from({ length: count }, (_, i) => ({
    from: i * part - (i > 0 ? overlap : 0),
    to: (i + 1) * part + (i < count - 1 ? overlap : 0),
    keepFrom: i * part,
    keepTo: (i + 1) * part,
  }));
}

/** Sides to which an image is mirrored before the network sees it. */
function mirroredSides(net: Network, width: number, height: number): [number, number] {
  const { architecture, config } = net;
  const least = Math.ceil(config.window / 2);
  const side = (n: number): number => architecture.mirroredSide(Math.max(least, n), config);
  return [side(width), side(height)];
}

/** How `tiling` cuts an image for `net`; what lies wholly in the mirrored border is left out. */
export function layoutOf(net: Network, width: number, height: number, tiling: Tiling): Layout {
  const count = (length: number): number => {
    if (tiling === "none") return 1;
    if (tiling === "official") return Math.floor(length / 200) + 1;
    return Math.ceil(length / tiling);
  };
  const cut = (length: number, side: number): Span[] =>
    spans(side, count(side))
      .filter((span) => span.keepFrom < length)
      .map((span) => ({ ...span, keepTo: Math.min(span.keepTo, length) }));
  const [wide, high] = mirroredSides(net, width, height);
  return { width, height, rows: cut(height, high), columns: cut(width, wide) };
}

/** `source` as the network sees it: small images mirrored up, others by the official rule. */
export function framed(net: Network, source: PixelSource): PixelSource {
  const least = Math.ceil(net.config.window / 2);
  const [w, h] = [Math.max(least, source.width), Math.max(least, source.height)];
  return mirrored(mirrored(source, w, h), ...mirroredSides(net, w, h));
}

/** Coordinates of a span, reflected at the last pixel (no repetition) as the official padding does. */
function coordinates(span: Span, length: number): I32 {
  const reflect = (i: number): number => (i < length ? i : 2 * length - 2 - i);
  return Int32Array.from({ length: span.to - span.from }, (_, i) => reflect(span.from + i));
}

/** Rows `from` to `to` (left out) of an image that the tiles of a span look at, mirrored ones too. */
export function rowsSeen(
  net: Network,
  { width, height }: { readonly width: number; readonly height: number },
  row: Span,
): { readonly from: number; readonly to: number } {
  let [from, to] = [height, 0];
  const read = (_xs: I32, ys: I32): void => {
    for (const y of ys) [from, to] = [Math.min(from, y), Math.max(to, y + 1)];
  };
  const source = framed(net, { width, height, read });
  source.read(Int32Array.of(0), coordinates(row, source.height), new Float32Array(0));
  return { from, to };
}

/** What a tile leaves of its result: rows of `width` RGB pixels within `data`. */
export interface Piece {
  /** Its place in the whole result, in output pixels. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly data: F32;
  /** First float of its first row, and floats from one row to the next. */
  readonly offset: number;
  readonly stride: number;
}

/** Arrays that the tiles of one walk share; a piece's data are overwritten by the next tile. */
export class TileBuffers {
  readonly #arrays: { [name: string]: F32 } = {};

  /** The first `length` floats of the array called `name`, contents undefined. */
  take(name: "input" | "output", length: number): F32 {
    if (!(this.#arrays[name]?.length >= length)) this.#arrays[name] = new Float32Array(length);
    return this.#arrays[name].subarray(0, length);
  }
}

/** Plans kept at a time: a layout has at most nine sizes of tiles, and two images may go side by side. */
const MOST_PLANS = 18;

/** Plans of one model by tile size and routing; each is traced once. */
export class TileRunner {
  readonly model: Model;
  readonly device: "cpu" | "cuda";
  readonly #plans = new Map<string, Plan>();

  constructor(model: Model, device: "cpu" | "cuda" = "cpu") {
    this.model = model;
    this.device = device;
  }

  /**
   * Upscales an image of at least half a window a side (ERR_IMAGE otherwise), mirrored beforehand
   * as the architecture's official evaluation does, and cropped again.
   */
  async run(image: FloatImage, options: RunOptions): Promise<FloatImage> {
    const { net } = this.model;
    const { scale, window } = net.config;
    const { width, height } = image;
    if (Math.min(width, height) < window / 2) {
      const wanted = `sides of at least ${window / 2} pixels`;
      throw expected("ERR_IMAGE", "input image", wanted, `${width}x${height}`);
    }
    const { rows, columns } = layoutOf(net, width, height, options.tiling);
    const source = framed(net, floatPixels(image));
    const buffers = new TileBuffers();
    const output = new Float32Array(width * height * 3 * scale * scale);
    let done = 0;
    for (const row of rows) {
      for (const column of columns) {
        const piece = await this.tile(source, row, column, options, buffers, options.signal);
        for (let y = 0; y < piece.height; y++) {
          const from = piece.offset + y * piece.stride;
          const to = ((piece.y + y) * width * scale + piece.x) * 3;
          output.set(piece.data.subarray(from, from + piece.width * 3), to);
        }
        options.onProgress?.(++done / (rows.length * columns.length));
      }
    }
    return { data: output, width: width * scale, height: height * scale };
  }

  /** Runs one tile of `source`, which is {@link framed}; `onProgress` as in {@link Plan.run}. */
  async tile(
    source: PixelSource,
    row: Span,
    column: Span,
    routing: Routing,
    buffers: TileBuffers,
    signal?: AbortSignal,
    onProgress?: (share: number) => void,
  ): Promise<Piece> {
    const { scale } = this.model.net.config;
    const [width, height] = [column.to - column.from, row.to - row.from];
    const input = buffers.take("input", width * height * 3);
    const [xs, ys] = [coordinates(column, source.width), coordinates(row, source.height)];
    const pauses = new Pauses();
    const atOnce = rowsAtOnce(width * 3);
    for (let y = 0; y < height; y += atOnce) {
      const to = Math.min(y + atOnce, height);
      source.read(xs, ys.subarray(y, to), input.subarray(y * width * 3, to * width * 3));
      await pauses.pause();
      signal?.throwIfAborted();
    }
    // Noise is keyed by the tile's origin, so results do not depend on the order of the tiles.
    const noiseTile = routing.routing === "sampled" ? row.from * 65_536 + column.from : 0;
    const output = buffers.take("output", input.length * scale * scale);
    const settings = { noiseTile, output, onProgress };
    const data = await this.plan(width, height, routing).run(input, signal, settings);
    const stride = width * scale * 3;
    const [skipX, skipY] = [column.keepFrom - column.from, row.keepFrom - row.from];
    return {
      x: column.keepFrom * scale,
      y: row.keepFrom * scale,
      width: (column.keepTo - column.keepFrom) * scale,
      height: (row.keepTo - row.keepFrom) * scale,
      data,
      offset: skipY * scale * stride + skipX * scale * 3,
      stride,
    };
  }

  /** Frees all plans; those that run end first. */
  release(): void {
    for (const plan of this.#plans.values()) plan.release();
    this.#plans.clear();
  }

  /** The plan for tiles of width x height LR pixels. */
  plan(width: number, height: number, { routing: mode, seed }: Routing): Plan {
    const { net, sites } = this.model;
    const key = `${width}x${height}:${net.architecture.routes ? `${mode}:${seed}` : ""}`;
    let plan = this.#plans.get(key);
    if (!plan) {
      if (this.#plans.size >= MOST_PLANS) this.release();
      // Tiles of rows do not know the places of their tokens: such models run op by op.
      const fused = !(this.model.quantised && hasTokenRanges(this.model.quantised.policy));
      plan = new Plan(net, sites, width, height, { mode, seed }, fused, this.device);
      this.#plans.set(key, plan);
    }
    return plan;
  }
}
