/**
 * Images that come row by row: only the rows that the tiles at work look at are held, so an image
 * may be larger than memory.
 */
import type { F32, I32 } from "../binding.ts";
import { expected } from "../errors.ts";
import type { ImageShape } from "../io/png.ts";
import { type RasterImage, rgbReader } from "../io/raster.ts";
import type { PixelSource } from "./mirror.ts";

/** Arrays of one or more whole rows of samples, from top to bottom; see {@link ImageRows}. */
export type Rows = AsyncIterable<RasterImage["data"]> | Iterable<RasterImage["data"]>;

/** An image whose rows come one after the other, each used up before the next is asked for. */
export interface ImageRows extends ImageShape {
  /** Arrays of whole rows of samples, all of them `height` rows together. */
  readonly rows: Rows;
}

/** Tells the two kinds of images apart. */
export function isRows(image: RasterImage | ImageRows): image is ImageRows {
  return "rows" in image;
}

/** An array of `length` samples of `depth` bits. */
export function samples(length: number, depth: 8 | 16): Uint8Array | Uint16Array {
  return depth === 8 ? new Uint8Array(length) : new Uint16Array(length);
}

/** The rows of an image of `shape`; ERR_SHAPE where one is torn, of the other depth, or too many. */
async function* checkedRows({ rows, ...shape }: ImageRows): AsyncGenerator<RasterImage["data"]> {
  const { width, height, channels, depth } = shape;
  const length = width * channels;
  let seen = 0;
  for await (const data of rows) {
    const count = data.length / length;
    const fits = depth === 8 ? data instanceof Uint8Array : data instanceof Uint16Array;
    if (!fits || !Number.isInteger(count)) {
      const got = `${data.length} samples in a ${data.constructor.name}`;
      const wanted = `whole rows of ${length} samples in a Uint${depth}Array`;
      throw expected("ERR_SHAPE", "rows of the image", wanted, got);
    }
    seen += count;
    if (seen > height) throw expected("ERR_SHAPE", "rows of the image", `${height}`, `${seen}`);
    if (count > 0) yield data;
  }
  if (seen < height) throw expected("ERR_SHAPE", "rows of the image", `${height}`, `${seen}`);
}

/** The whole image. */
export async function collectRows(image: ImageRows): Promise<RasterImage> {
  const { rows: _, ...shape } = image;
  const data = samples(shape.width * shape.height * shape.channels, shape.depth);
  let at = 0;
  for await (const part of checkedRows(image)) {
    data.set(part, at);
    at += part.length;
  }
  return { ...shape, data };
}

/** The rows from one to another of an image that comes from top to bottom. */
export class RowWindow implements PixelSource {
  readonly width: number;
  readonly height: number;
  readonly #image: ImageRows;
  readonly #source: AsyncGenerator<RasterImage["data"]>;
  #held: RasterImage["data"];
  /** First row held, and how many. */
  #first = 0;
  #count = 0;

  constructor(image: ImageRows) {
    this.#image = image;
    this.width = image.width;
    this.height = image.height;
    this.#source = checkedRows(image);
    this.#held = samples(0, image.depth);
  }

  /** Rows before `from` are dropped for good; those up to `to` (left out) are read. */
  async move(from: number, to: number): Promise<void> {
    const row = this.width * this.#image.channels;
    const gone = Math.min(Math.max(0, from - this.#first), this.#count);
    this.#held.copyWithin(0, gone * row, this.#count * row);
    this.#first += gone;
    this.#count -= gone;
    while (this.#first + this.#count < to) {
      const { value, done } = await this.#source.next();
      if (done) break; // the source has checked that it gave all rows
      const used = this.#count * row;
      if (this.#held.length < used + value.length) {
        const larger = samples(Math.max(2 * used, used + value.length), this.#image.depth);
        larger.set(this.#held.subarray(0, used));
        this.#held = larger;
      }
      this.#held.set(value, used);
      this.#count += value.length / row;
    }
    // What comes behind the last row is asked for too: rows too many are an error, not a rest.
    if (to >= this.height) await this.#source.next();
  }

  read(xs: I32, ys: I32, into: F32): void {
    const { width } = this;
    const reader = rgbReader({ ...this.#image, data: this.#held });
    let at = 0;
    for (const y of ys) {
      for (const x of xs) {
        reader((y - this.#first) * width + x, into, at);
        at += 3;
      }
    }
  }

  /** Lets the source go, read to its end or not. */
  async close(): Promise<void> {
    await this.#source.return(undefined);
  }
}
