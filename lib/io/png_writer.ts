/**
 * Writes a PNG row by row: each row gets the filter that promises to deflate best, zlib deflates
 * the rows as they come, and what it gives is written in IDAT chunks. Only a few rows are held, so
 * images may be larger than memory. encodePng (png.ts) is for images that are at hand as a whole.
 */
import { pipeline } from "node:stream/promises";
import { crc32, createDeflate, type ZlibOptions } from "node:zlib";
import { expected } from "../errors.ts";
import { Pauses, rowsAtOnce } from "./pause.ts";
import { COLOR_TYPE_OF_CHANNELS, SIGNATURE } from "./png_container.ts";
import type { ImageShape } from "./png.ts";
import type { RasterImage } from "./raster.ts";

/** Bytes of filtered rows handed to zlib at once, at least one row: fewer calls, and still little. */
const BLOCK_BYTES = 2 ** 18;

/** Bytes of an IDAT chunk at most. */
const CHUNK_BYTES = 2 ** 16;

/** zlib's own default: level 9 takes several times as long for 1 to 8 % of the size. */
const DEFLATE_LEVEL = 6;

/** Bytes held at once while rows of `shape` are written: a block, rows in filters, zlib's window. */
export function pngWriterBytes(shape: ImageShape): number {
  const row = shape.width * shape.channels * (shape.depth / 8);
  return 8 * row + BLOCK_BYTES + 2 ** 20;
}

/**
 * Writes an image of `shape` whose samples come from `rows`: arrays of one or more whole rows, from
 * top to bottom, each used up before the next is asked for. `write` gets the bytes in order and is
 * awaited. ERR_SHAPE where the rows are too many or too few; errors of `rows` and `write` pass.
 */
export async function writePng(
  shape: ImageShape,
  rows: AsyncIterable<RasterImage["data"]> | Iterable<RasterImage["data"]>,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  for await (const bytes of pngChunks(shape, rows)) await write(bytes);
}

/**
 * The bytes of a PNG of `shape` as they come, in chunks that the receiver may keep; `rows` as for
 * {@link writePng}. ERR_SHAPE where the rows are too many or too few; errors of `rows` pass, and
 * `rows` is closed where the reader leaves early.
 */
export async function* pngChunks(
  shape: ImageShape,
  rows: AsyncIterable<RasterImage["data"]> | Iterable<RasterImage["data"]>,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield Buffer.concat([SIGNATURE, chunk("IHDR", header(shape))]);
  // A mark of one byte: the next block is asked for when zlib has used up the one before.
  const deflate = createDeflate({
    level: DEFLATE_LEVEL,
    chunkSize: CHUNK_BYTES,
    writableHighWaterMark: 1,
  } as ZlibOptions);
  const fed = pipeline(filtered(shape, rows), deflate).then(
    () => null,
    (error: unknown) => ({ error }),
  );
  try {
    for await (const bytes of portions(deflate)) yield chunk("IDAT", bytes);
    yield chunk("IEND", Buffer.alloc(0));
  } catch (cause) {
    throw (await fed)?.error ?? cause; // zlib only says that its input ended
  } finally {
    deflate.destroy();
    await fed;
  }
}

function header({ width, height, channels, depth }: ImageShape): Buffer {
  const body = Buffer.alloc(13);
  body.writeUInt32BE(width, 0);
  body.writeUInt32BE(height, 4);
  body.set([depth, COLOR_TYPE_OF_CHANNELS[channels]], 8);
  return body;
}

/**
 * The same bytes in portions of CHUNK_BYTES, each overwritten by the next: what zlib gives at once
 * depends on the moment, and the same image should be the same file.
 */
async function* portions(deflated: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const portion = Buffer.alloc(CHUNK_BYTES);
  let held = 0;
  for await (const bytes of deflated) {
    for (let at = 0; at < bytes.length; ) {
      const count = bytes.copy(portion, held, at);
      at += count;
      held += count;
      if (held < CHUNK_BYTES) continue;
      yield portion;
      held = 0;
    }
  }
  if (held > 0) yield portion.subarray(0, held);
}

/** Length, type, contents and checksum. */
function chunk(type: string, body: Buffer): Buffer {
  const out = Buffer.allocUnsafe(12 + body.length);
  out.writeUInt32BE(body.length, 0);
  out.write(type, 4, "latin1");
  out.set(body, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + body.length)), 8 + body.length);
  return out;
}

/** Blocks of filtered rows; each is overwritten by the next. */
async function* filtered(
  shape: ImageShape,
  rows: AsyncIterable<RasterImage["data"]> | Iterable<RasterImage["data"]>,
): AsyncGenerator<Buffer> {
  const { width, height, channels, depth } = shape;
  const samples = width * channels;
  const size = samples * (depth / 8);
  const filter = new RowFilter(size, channels * (depth / 8));
  const perBlock = Math.max(1, Math.floor(BLOCK_BYTES / (size + 1)));
  const block = Buffer.alloc(perBlock * (size + 1));
  const atOnce = rowsAtOnce(size);
  const pauses = new Pauses();
  let seen = 0;
  for await (const data of rows) {
    const count = data.length / samples;
    seen += count;
    if (!Number.isInteger(count) || seen > height) throw wrongRows(height, seen);
    for (let first = 0; first < count; first += perBlock) {
      const last = Math.min(count, first + perBlock);
      for (let row = first; row < last; row++) {
        // Before the first row, too: whoever made the rows may have held the event loop until now.
        if ((row - first) % atOnce === 0) await pauses.pause();
        filter.put(data, row * samples, block, (row - first) * (size + 1));
      }
      yield block.subarray(0, (last - first) * (size + 1));
    }
  }
  if (seen !== height) throw wrongRows(height, seen);
}

function wrongRows(height: number, got: number) {
  return expected("ERR_SHAPE", "rows of the PNG", `${height}`, `${got}`);
}

/** Chooses a row's filter by the least sum of absolute differences, as the PNG standard advises. */
class RowFilter {
  readonly #size: number;
  /** Bytes of a pixel: the distance to the byte at the left. */
  readonly #step: number;
  /** This row and the one above, after a pixel of zeros each. */
  #row: Uint8Array;
  #above: Uint8Array;
  #best: Uint8Array;
  #trial: Uint8Array;

  constructor(size: number, step: number) {
    this.#size = size;
    this.#step = step;
    this.#row = new Uint8Array(step + size);
    this.#above = new Uint8Array(step + size);
    this.#best = new Uint8Array(size);
    this.#trial = new Uint8Array(size);
  }

  /** Filters the row that begins at samples[from] into filter type and bytes from out[to] on. */
  put(samples: RasterImage["data"], from: number, out: Uint8Array, to: number): void {
    [this.#row, this.#above] = [this.#above, this.#row];
    this.#load(samples, from);
    let [type, least] = [0, Number.POSITIVE_INFINITY];
    for (const [i, apply] of FILTERS.entries()) {
      const sum = apply(this.#row, this.#above, this.#trial, this.#step);
      if (sum >= least) continue;
      [type, least] = [i, sum];
      [this.#best, this.#trial] = [this.#trial, this.#best];
    }
    out[to] = type;
    out.set(this.#best, to + 1);
  }

  #load(samples: RasterImage["data"], from: number): void {
    const [row, size, step] = [this.#row, this.#size, this.#step];
    if (samples instanceof Uint8Array) {
      row.set(samples.subarray(from, from + size), step);
      return;
    }
    for (let i = 0, at = step; i < size / 2; i++) {
      row[at++] = samples[from + i] >> 8;
      row[at++] = samples[from + i] & 255;
    }
  }
}

/**
 * Filters row and above (each after `step` bytes of zeros) into `out`; returns the sum of absolute
 * values of the bytes seen as signed.
 */
type Filter = (row: Uint8Array, above: Uint8Array, out: Uint8Array, step: number) => number;

/** The five filters by their type. Written out, since each runs once a byte. */
const FILTERS: readonly Filter[] = [
  function none(row, _above, out, step) {
    let sum = 0;
    for (let i = 0; i < out.length; i++) {
      const value = row[i + step];
      out[i] = value;
      sum += value < 128 ? value : 256 - value;
    }
    return sum;
  },
  function sub(row, _above, out, step) {
    let sum = 0;
    for (let i = 0; i < out.length; i++) {
      const value = (row[i + step] - row[i]) & 255;
      out[i] = value;
      sum += value < 128 ? value : 256 - value;
    }
    return sum;
  },
  function up(row, above, out, step) {
    let sum = 0;
    for (let i = 0; i < out.length; i++) {
      const value = (row[i + step] - above[i + step]) & 255;
      out[i] = value;
      sum += value < 128 ? value : 256 - value;
    }
    return sum;
  },
  function average(row, above, out, step) {
    let sum = 0;
    for (let i = 0; i < out.length; i++) {
      const value = (row[i + step] - ((row[i] + above[i + step]) >> 1)) & 255;
      out[i] = value;
      sum += value < 128 ? value : 256 - value;
    }
    return sum;
  },
  function paeth(row, above, out, step) {
    let sum = 0;
    for (let i = 0; i < out.length; i++) {
      const [left, up, corner] = [row[i], above[i + step], above[i]];
      const estimate = left + up - corner;
      const byLeft = Math.abs(estimate - left);
      const byUp = Math.abs(estimate - up);
      const byCorner = Math.abs(estimate - corner);
      const nearest = byLeft <= byUp && byLeft <= byCorner ? left : byUp <= byCorner ? up : corner;
      const value = (row[i + step] - nearest) & 255;
      out[i] = value;
      sum += value < 128 ? value : 256 - value;
    }
    return sum;
  },
];
