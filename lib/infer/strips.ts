/**
 * Images of any kind that PNG knows, enlarged strip by strip: depth in = depth out, grey stays grey
 * (run as RGB, the mean of the three results), alpha is kept (alpha.ts). A strip is one row of
 * tiles; besides it, only the tile at work is in memory.
 */
import { expected } from "../errors.ts";
import type { ImageShape } from "../io/png.ts";
import { type RasterImage, roundHalfEven } from "../io/raster.ts";
import { alphaPlane, constantValue, fillTransparent, hasAlpha, keepFlat } from "./alpha.ts";
import { type PixelSource, rasterPixels } from "./mirror.ts";
import { Pauses, rowsAtOnce } from "../io/pause.ts";
import { collectRows, type ImageRows, isRows, RowWindow, samples } from "./rows.ts";
import {
  framed,
  layoutOf,
  type Piece,
  type RunOptions,
  rowsSeen,
  type Span,
  TileBuffers,
  type TileRunner,
} from "./tiles.ts";

/** Finished rows of a result, `channels` samples a pixel; overwritten when the next are asked for. */
export interface Strip {
  /** First row in the result, and how many. */
  readonly y: number;
  readonly height: number;
  readonly data: RasterImage["data"];
}

/**
 * The strips of the enlarged image, from top to bottom. Of an image that comes row by row, only the
 * rows of one strip are held, unless it has alpha: the colour under hidden pixels comes from all of
 * it. ERR_CHECKPOINT for a NaN; errors of the image's rows pass.
 */
export async function* strips(
  runner: TileRunner,
  image: RasterImage | ImageRows,
  options: RunOptions,
): AsyncGenerator<Strip> {
  const given = isRows(image) && hasAlpha(image) ? await collectRows(image) : image;
  const { net } = runner.model;
  const { scale } = net.config;
  const { rows, columns } = layoutOf(net, image.width, image.height, options.tiling);
  const window = isRows(given) ? new RowWindow(given) : null;
  const walk = new Walk(runner, isRows(given) ? null : given, window, image, columns, options);
  let done = 0;
  const all = walk.passes * rows.length * columns.length;
  walk.onShare = (share) => options.onProgress?.((done + share) / all);
  walk.onTile = () => options.onProgress?.(++done / all);
  const seen = rows.map((row) => rowsSeen(net, image, row));
  try {
    for (const [i, row] of rows.entries()) {
      const first = Math.min(...seen.slice(i).map(({ from }) => from));
      await window?.move(first, seen[i].to);
      const data = await walk.strip(row);
      yield { y: row.keepFrom * scale, height: (row.keepTo - row.keepFrom) * scale, data };
    }
  } finally {
    await window?.close();
  }
}

/** What the strips of one image share. */
class Walk {
  readonly passes: 1 | 2;
  /** Called with the share of the tile at work that is done, below 1, and after each tile. */
  onShare: (share: number) => void = () => {};
  onTile: () => void = () => {};
  readonly #runner: TileRunner;
  readonly #columns: readonly Span[];
  readonly #options: RunOptions;
  readonly #scale: number;
  readonly #image: ImageShape;
  readonly #colour: PixelSource;
  readonly #alpha: { readonly plane: RasterImage; readonly constant: number | null } | null;
  readonly #buffers = new TileBuffers();
  #strip: RasterImage["data"] = new Uint8Array(0);
  #alphaStrip: RasterImage["data"] = new Uint8Array(0);
  readonly #pauses = new Pauses();

  /** Of a whole image, or of one without alpha whose rows pass through a window. */
  constructor(
    runner: TileRunner,
    image: RasterImage | null,
    window: RowWindow | null,
    shape: ImageShape,
    columns: readonly Span[],
    options: RunOptions,
  ) {
    this.#runner = runner;
    this.#image = shape;
    this.#columns = columns;
    this.#options = options;
    this.#scale = runner.model.net.config.scale;
    const plane = image && hasAlpha(image) ? alphaPlane(image) : null;
    const constant = plane && constantValue(plane.data);
    this.#alpha = plane && { plane, constant };
    this.passes = plane && constant === null ? 2 : 1;
    const visible = image && this.passes === 2 ? fillTransparent(image) : image;
    this.#colour = framed(runner.model.net, visible ? rasterPixels(visible) : window!);
  }

  /** Rows row.keepFrom to row.keepTo, enlarged: colours and alpha interleaved. */
  async strip(row: Span): Promise<RasterImage["data"]> {
    const { channels, depth, width } = this.#image;
    const scale = this.#scale;
    const pixels = (row.keepTo - row.keepFrom) * scale * width * scale;
    if (this.#strip.length < pixels * channels) this.#strip = samples(pixels * channels, depth);
    const data = this.#strip.subarray(0, pixels * channels);
    const colours = channels < 3 ? 1 : 3;
    await this.#pass(this.#colour, row, data, channels, colours);
    if (!this.#alpha) return data;
    const { plane, constant } = this.#alpha;
    if (constant === null) {
      if (this.#alphaStrip.length < pixels) this.#alphaStrip = samples(pixels, depth);
      const alpha = this.#alphaStrip.subarray(0, pixels);
      await this.#pass(framed(this.#runner.model.net, rasterPixels(plane)), row, alpha, 1, 1);
      keepFlat(plane, alpha, scale, row.keepFrom, row.keepTo);
      for (let i = 0; i < pixels; i++) data[i * channels + colours] = alpha[i];
    } else {
      for (let i = 0; i < pixels; i++) data[i * channels + colours] = constant;
    }
    return data;
  }

  /** One row of tiles through the network, into the first `colours` of `channels` samples. */
  async #pass(
    source: PixelSource,
    row: Span,
    data: RasterImage["data"],
    channels: number,
    colours: 1 | 3,
  ): Promise<void> {
    const { signal } = this.#options;
    for (const column of this.#columns) {
      signal?.throwIfAborted();
      const piece = await this.#runner.tile(
        source,
        row,
        column,
        this.#options,
        this.#buffers,
        signal,
        this.onShare,
      );
      this.#pauses.restart();
      await this.#paste(piece, data, channels, colours);
      this.onTile();
    }
  }

  /** Samples of a piece, which begins with the strip's first row. */
  async #paste(
    piece: Piece,
    data: RasterImage["data"],
    channels: number,
    colours: 1 | 3,
  ): Promise<void> {
    const atOnce = rowsAtOnce(piece.width * 3);
    for (let y = 0; y < piece.height; y += atOnce) {
      this.#pasteRows(piece, y, Math.min(y + atOnce, piece.height), data, channels, colours);
      await this.#pauses.pause();
      this.#options.signal?.throwIfAborted();
    }
  }

  #pasteRows(
    piece: Piece,
    first: number,
    last: number,
    data: RasterImage["data"],
    channels: number,
    colours: 1 | 3,
  ): void {
    const wide = this.#image.width * this.#scale;
    const peak = this.#image.depth === 8 ? 255 : 65535;
    for (let y = first; y < last; y++) {
      let at = piece.offset + y * piece.stride;
      let to = (y * wide + piece.x) * channels;
      for (let x = 0; x < piece.width; x++, at += 3, to += channels) {
        if (colours === 1) {
          const sum = piece.data[at] + piece.data[at + 1] + piece.data[at + 2];
          data[to] = toSample(sum / 3, peak, piece.x + x, piece.y + y);
        } else {
          for (let c = 0; c < 3; c++) {
            data[to + c] = toSample(piece.data[at + c], peak, piece.x + x, piece.y + y);
          }
        }
      }
    }
  }
}

/**
 * A value in 0..1 as a sample, clamped and rounded half to even as the evaluation does. One colour
 * of grey is the mean of three, which saw the same grey and differ only by the network's error.
 */
function toSample(value: number, peak: number, x: number, y: number): number {
  if (Number.isNaN(value)) {
    const fix = "The model is damaged: spr2q inspect shows its bounds.";
    throw expected("ERR_CHECKPOINT", `output pixel (${x}, ${y})`, "a number", "NaN", fix);
  }
  return roundHalfEven(Math.fround(Math.min(Math.max(value, 0), 1) * peak));
}
