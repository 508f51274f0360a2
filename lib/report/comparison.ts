/**
 * What a run's report shows of a test folder: quality and time of bicubic, full precision and the
 * quantised model, and crops of the places where they differ most.
 */
import { evaluateBy, upscaleRgb } from "../infer/evaluate.ts";
import type { Model } from "../infer/model.ts";
import { type RunOptions, TileRunner } from "../infer/tiles.ts";
import { type LoadedPair, loadPair, pairImages } from "../io/images.ts";
import { encodePng, type RasterImage } from "../io/png.ts";
import { cropRaster } from "../io/raster.ts";
import { bicubicResize } from "../metrics/resize.ts";
import type { Comparison } from "./html.ts";

/** One of the three ways of enlarging. */
export interface Contender {
  readonly label: string;
  readonly psnr: number;
  readonly ssim: number;
  /** Of all images together, metrics included. */
  readonly seconds: number;
  /** Bytes of its file; 0 for bicubic. */
  readonly bytes: number;
}

/** Results on a folder. */
export interface Comparisons {
  readonly contenders: readonly Contender[];
  readonly crops: readonly Comparison[];
  readonly images: number;
}

/** HR pixels a side of a crop. */
const CROP = 128;
/** Images of which crops are shown; the two of the paper's Figure 2 come first. */
const SHOWN = 4;
const FIGURE_2 = ["img_019", "img_044"];

/** A model with its label and the size of its file. */
export interface Entrant {
  readonly label: string;
  readonly model: Model;
  readonly bytes: number;
}

function bicubic(lr: RasterImage, scale: number): RasterImage {
  const { width, height } = lr;
  const large = bicubicResize(lr.data as Uint8Array, width, height, 3, scale);
  return { ...large, channels: 3, depth: 8 };
}

/** Top left corner of the CROP x CROP square where `a` and `b` differ most. */
export function mostDifferent(a: RasterImage, b: RasterImage, side = CROP): [number, number] {
  const { width, height } = a;
  const step = Math.max(1, side >> 2);
  // Sums of squares over cells of `step` pixels; a square is four by four of them.
  const [columns, rows] = [Math.floor(width / step), Math.floor(height / step)];
  const cells = new Float64Array(columns * rows);
  for (let y = 0; y < rows * step; y++) {
    for (let x = 0; x < columns * step; x++) {
      const at = (y * width + x) * 3;
      let sum = 0;
      for (let c = 0; c < 3; c++) sum += (a.data[at + c] - b.data[at + c]) ** 2;
      cells[Math.floor(y / step) * columns + Math.floor(x / step)] += sum;
    }
  }
  let [best, bestX, bestY] = [-1, 0, 0];
  for (let y = 0; y + 4 <= rows; y++) {
    for (let x = 0; x + 4 <= columns; x++) {
      let sum = 0;
      for (let i = 0; i < 16; i++) sum += cells[(y + (i >> 2)) * columns + x + (i & 3)];
      if (sum > best) [best, bestX, bestY] = [sum, x * step, y * step];
    }
  }
  return [bestX, bestY];
}

/** The sliders of one image: bicubic, full precision and the original against the result. */
function slidersOf(
  name: string,
  label: string,
  images: Readonly<Record<"hr" | "bicubic" | "full" | "result", RasterImage>>,
): Comparison[] {
  const [x, y] = mostDifferent(images.hr, images.bicubic);
  const png = (image: RasterImage): string =>
    Buffer.from(encodePng(cropRaster(image, CROP, CROP, x, y))).toString("base64");
  const right = { label, pngBase64: png(images.result) };
  const caption = `${CROP}x${CROP} pixels at (${x}, ${y}), where bicubic errs most`;
  const pair = (title: string, image: RasterImage): Comparison => ({
    name: `${name}: ${title}`,
    left: { label: title, pngBase64: png(image) },
    right,
    caption,
  });
  return [
    pair("bicubic", images.bicubic),
    pair("full precision", images.full),
    pair("original", images.hr),
  ];
}

/** Evaluates bicubic, `full` and `result` on a folder and cuts the crops. */
export async function compareOn(
  hrDir: string,
  lrDir: string | undefined,
  full: Entrant,
  result: Entrant,
  options: RunOptions,
): Promise<Comparisons> {
  const { scale } = full.model.net.config;
  const [fullRunner, runner] = [new TileRunner(full.model), new TileRunner(result.model)];
  const ways = [
    { label: "bicubic", bytes: 0, upscale: (lr: RasterImage) => bicubic(lr, scale) },
    { ...full, upscale: (lr: RasterImage) => upscaleRgb(fullRunner, lr, options) },
    { ...result, upscale: (lr: RasterImage) => upscaleRgb(runner, lr, options) },
  ];
  const contenders: Contender[] = [];
  for (const { label, bytes, upscale } of ways) {
    const { psnr, ssim, seconds } = await evaluateBy(upscale, scale, hrDir, lrDir, options);
    contenders.push({ label, bytes, psnr, ssim, seconds });
  }
  const pairs = await pairImages(hrDir, lrDir ?? null, scale);
  const rank = (name: string): number => (FIGURE_2.includes(name) ? 0 : 1);
  const shown = [...pairs].sort((a, b) => rank(a.name) - rank(b.name)).slice(0, SHOWN);
  const crops: Comparison[] = [];
  for (const pair of shown) {
    options.signal?.throwIfAborted();
    const { name, hr, lr }: LoadedPair = await loadPair(pair, scale);
    if (Math.min(hr.width, hr.height) < CROP) continue;
    const [blurred, sharp, ours] = await Promise.all(ways.map(({ upscale }) => upscale(lr)));
    crops.push(
      ...slidersOf(name, result.label, { hr, bicubic: blurred, full: sharp, result: ours }),
    );
  }
  fullRunner.release();
  runner.release();
  return { contenders, crops, images: pairs.length };
}
