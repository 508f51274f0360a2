/**
 * Whole images through fixed-size plans: as one tile, by the official evaluation rule, or in tiles
 * of a given side. Tiles are independent: routing and scan see one tile at a time.
 */
import type { F32 } from "../binding.ts";
import { expected } from "../errors.ts";
import type { RoutingMode } from "../nn/routing.ts";
import { cropTo, type FloatImage, mirrorTo } from "./mirror.ts";
import type { Model } from "./model.ts";
import { Plan } from "./plan.ts";

/** "none": the whole image; "official": MambaIRv2's rule (sides from 200 up are split); or a side. */
export type Tiling = "none" | "official" | number;

export interface RunOptions {
  readonly tiling: Tiling;
  readonly routing: RoutingMode;
  readonly seed: number;
  readonly signal?: AbortSignal;
  /** Called after each tile with the share done. */
  readonly onProgress?: (share: number) => void;
}

/** A span of an axis: what the network sees, and what of it is kept. */
interface Span {
  readonly from: number;
  readonly to: number;
  readonly keepFrom: number;
  readonly keepTo: number;
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

/** Reflects a coordinate at the image's last pixel (no repetition), as the official padding does. */
const reflect = (i: number, length: number): number => (i < length ? i : 2 * length - 2 - i);

/** Plans of one model by tile size and place; each is traced once. */
export class TileRunner {
  readonly #model: Model;
  readonly #plans = new Map<string, Plan>();

  constructor(model: Model) {
    this.#model = model;
  }

  /**
   * Upscales an image of at least half a window a side (ERR_IMAGE otherwise), mirrored beforehand
   * as the architecture's official evaluation does, and cropped again.
   */
  async run(image: FloatImage, options: RunOptions): Promise<FloatImage> {
    const { architecture, config } = this.#model.net;
    const { scale, window } = config;
    const { width, height } = image;
    if (Math.min(width, height) < window / 2) {
      throw expected(
        "ERR_IMAGE",
        "input image",
        `sides of at least ${window / 2} pixels`,
        `${width}x${height}`,
      );
    }
    const side = (length: number): number => architecture.mirroredSide(length, config);
    const whole = await this.#tiles(mirrorTo(image, side(width), side(height)), options);
    return cropTo(whole, width * scale, height * scale);
  }

  async #tiles(image: FloatImage, options: RunOptions): Promise<FloatImage> {
    const { scale } = this.#model.net.config;
    const { width, height } = image;
    const count = (length: number): number => {
      if (options.tiling === "none") return 1;
      if (options.tiling === "official") return Math.floor(length / 200) + 1;
      return Math.ceil(length / options.tiling);
    };
    const rows = spans(height, count(height));
    const columns = spans(width, count(width));
    const output = new Float32Array(width * height * 3 * scale * scale);
    let done = 0;
    for (const row of rows) {
      for (const column of columns) {
        const tile = cut(image, row, column);
        const upscaled = await this.#tile(tile, row.from, column.from, options);
        paste(output, width, height, scale, upscaled, tile.width, row, column);
        options.onProgress?.(++done / (rows.length * columns.length));
      }
    }
    return { data: output, width: width * scale, height: height * scale };
  }

  async #tile(tile: FloatImage, y: number, x: number, options: RunOptions): Promise<F32> {
    const { routing: mode, seed } = options;
    // Noise is keyed by the tile's origin, so results do not depend on the order of the tiles.
    const origin = y * 65_536 + x;
    const noise = `${mode}:${seed}:${mode === "sampled" ? origin : 0}`;
    const { routes } = this.#model.net.architecture;
    const key = `${tile.width}x${tile.height}:${routes ? noise : ""}`;
    let plan = this.#plans.get(key);
    if (!plan) {
      if (this.#plans.size >= 8) this.#plans.clear();
      plan = new Plan(this.#model.net, this.#model.sites, tile.width, tile.height, {
        mode,
        seed,
        tile: origin,
      });
      this.#plans.set(key, plan);
    }
    return plan.run(tile.data, options.signal);
  }
}

function cut(image: FloatImage, row: Span, column: Span): FloatImage {
  const [width, height] = [column.to - column.from, row.to - row.from];
  if (width === image.width && height === image.height) return image;
  const data = new Float32Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const sy = reflect(row.from + y, image.height);
    for (let x = 0; x < width; x++) {
      const from = (sy * image.width + reflect(column.from + x, image.width)) * 3;
      data.set(image.data.subarray(from, from + 3), (y * width + x) * 3);
    }
  }
  return { data, width, height };
}

function paste(
  output: F32,
  width: number,
  height: number,
  scale: number,
  tile: F32,
  tileWidth: number,
  row: Span,
  column: Span,
): void {
  const [y1, x1] = [Math.min(row.keepTo, height) * scale, Math.min(column.keepTo, width) * scale];
  for (let y = row.keepFrom * scale; y < y1; y++) {
    const ty = y - row.from * scale;
    const tx = (column.keepFrom - column.from) * scale;
    const from = (ty * tileWidth * scale + tx) * 3;
    const count = (x1 - column.keepFrom * scale) * 3;
    output.set(
      tile.subarray(from, from + count),
      (y * width * scale + column.keepFrom * scale) * 3,
    );
  }
}
