/**
 * Training patches: random crops of HR images with their MATLAB-bicubic LR twins, flipped and
 * rotated. A batch is a function of (seed, iteration) alone, so a resumed run sees the same ones.
 */
import { readFile } from "node:fs/promises";
import { Var } from "../autograd.ts";
import { Spr2qError } from "../errors.ts";
import { listImages } from "../io/images.ts";
import { decodePng, type RasterImage } from "../io/png.ts";
import { bicubicResize } from "../metrics/resize.ts";
import { generator } from "../random.ts";
import { floats } from "../tensor.ts";

/** One HR image (cropped to a multiple of the scale) and its LR twin, 8-bit RGB. */
interface Pair {
  readonly name: string;
  readonly high: Uint8Array;
  readonly low: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** One batch: low (batch, patch, patch, 3) and high (batch, s*patch, s*patch, 3) in 0..1. */
export interface Batch {
  readonly low: Var;
  readonly high: Var;
}

/** 8-bit RGB of an image, grey replicated, alpha dropped, cropped to multiples of `scale`. */
export function rgb8(
  image: RasterImage,
  scale: number,
): { data: Uint8Array; width: number; height: number } {
  const width = image.width - (image.width % scale);
  const height = image.height - (image.height % scale);
  const { channels, depth } = image;
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        const value = image.data[(y * image.width + x) * channels + (channels < 3 ? 0 : c)];
        data[(y * width + x) * 3 + c] = depth === 16 ? Math.round(value / 257) : value;
      }
    }
  }
  return { data, width, height };
}

/** The images of a folder, ready for cropping. */
export class PatchSource {
  readonly scale: number;
  readonly #pairs: readonly Pair[];

  private constructor(scale: number, pairs: readonly Pair[]) {
    this.scale = scale;
    this.#pairs = pairs;
  }

  /** Reads all PNGs of `dir`; ERR_DATA where one is smaller than an LR patch of `patch` needs. */
  static async open(dir: string, scale: number, patch: number): Promise<PatchSource> {
    const pairs: Pair[] = [];
    for (const path of await listImages(dir)) {
      const { data, width, height } = rgb8(decodePng(await readFile(path), path), scale);
      if (Math.min(width, height) < patch * scale) {
        throw new Spr2qError(
          "ERR_DATA",
          `${path} is ${width}x${height}: patches of ${patch} at x${scale} ` +
            `need ${patch * scale} pixels a side. Remove it or lower --patch.`,
        );
      }
      const low = bicubicResize(data, width, height, 3, 1 / scale);
      pairs.push({
        name: path,
        high: data,
        low: low.data,
        width: width / scale,
        height: height / scale,
      });
    }
    return new PatchSource(scale, pairs);
  }

  /** True where every image holds an LR patch of that side. */
  fits(patch: number): boolean {
    return this.#pairs.every(({ width, height }) => Math.min(width, height) >= patch);
  }

  /** The middle crop of the last image, which draw() leaves out where there are four or more. */
  heldOut(patch: number): Batch {
    const pair = this.#pairs[this.#pairs.length - 1];
    const [x, y] = [(pair.width - patch) >> 1, (pair.height - patch) >> 1];
    const side = patch * this.scale;
    const low = floats(patch * patch * 3);
    const high = floats(side * side * 3);
    crop(pair.low, pair.width, x, y, patch, 0, low);
    crop(pair.high, pair.width * this.scale, x * this.scale, y * this.scale, side, 0, high);
    return { low: new Var(low, [1, patch, patch, 3]), high: new Var(high, [1, side, side, 3]) };
  }

  /**
   * `batch` crops of patch x patch LR pixels; all eight symmetries, each as likely. Each is the one
   * with most detail of `candidates`.
   */
  draw(batch: number, patch: number, seed: number, iteration: number, candidates = 1): Batch {
    const draw = generator(seed, iteration, 0x5eed);
    const usable = this.#pairs.length >= 4 ? this.#pairs.length - 1 : this.#pairs.length;
    const side = patch * this.scale;
    const low = floats(batch * patch * patch * 3);
    const high = floats(batch * side * side * 3);
    for (let b = 0; b < batch; b++) {
      const { pair, x, y } = mostDetailed(
        Array.from({ length: candidates }, () => {
          const pair = this.#pairs[Math.floor(draw() * usable)];
          const x = Math.floor(draw() * (pair.width - patch + 1));
          const y = Math.floor(draw() * (pair.height - patch + 1));
          return { pair, x, y };
        }),
        patch,
        this.scale,
      );
      const turn = Math.floor(draw() * 8);
      crop(pair.low, pair.width, x, y, patch, turn, low.subarray(b * patch * patch * 3));
      crop(
        pair.high,
        pair.width * this.scale,
        x * this.scale,
        y * this.scale,
        side,
        turn,
        high.subarray(b * side * side * 3),
      );
    }
    return {
      low: new Var(low, [batch, patch, patch, 3]),
      high: new Var(high, [batch, side, side, 3]),
    };
  }
}

/** A place of a crop. */
interface Place {
  readonly pair: Pair;
  readonly x: number;
  readonly y: number;
}

/** The place whose pixels differ most from the LR pixels that cover them. */
function mostDetailed(places: readonly Place[], patch: number, scale: number): Place {
  if (places.length === 1) return places[0];
  const details = places.map((place) => detail(place, patch, scale));
  return places[details.indexOf(Math.max(...details))];
}

/** Sum of the differences of all HR samples of a crop from the LR sample that covers them. */
function detail({ pair, x, y }: Place, patch: number, scale: number): number {
  let sum = 0;
  for (let row = y * scale; row < (y + patch) * scale; row++) {
    const low = Math.floor(row / scale) * pair.width;
    for (let column = x * scale; column < (x + patch) * scale; column++) {
      const high = (row * pair.width * scale + column) * 3;
      const covering = (low + Math.floor(column / scale)) * 3;
      for (let c = 0; c < 3; c++) sum += Math.abs(pair.high[high + c] - pair.low[covering + c]);
    }
  }
  return sum;
}

/** Copies a square, transposed (bit 0) and mirrored (bits 1, 2), as floats in 0..1. */
function crop(
  source: Uint8Array,
  width: number,
  x0: number,
  y0: number,
  side: number,
  turn: number,
  target: Float32Array,
): void {
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [u, v] = turn & 1 ? [y, x] : [x, y];
      const sx = x0 + (turn & 2 ? side - 1 - u : u);
      const sy = y0 + (turn & 4 ? side - 1 - v : v);
      const from = (sy * width + sx) * 3;
      const to = (y * side + x) * 3;
      for (let c = 0; c < 3; c++) target[to + c] = source[from + c] / 255;
    }
  }
}
