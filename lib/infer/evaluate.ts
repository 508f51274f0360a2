/** PSNR and SSIM of a model (or of bicubic interpolation) on a folder, by the SR protocol. */
import { type LoadedPair, loadPair, pairImages } from "../io/images.ts";
import { fromRgbFloat, type RasterImage, toRgbFloat } from "../io/png.ts";
import { bicubicLumaPsnr } from "../metrics/bicubic_luma.ts";
import { psnrY } from "../metrics/psnr.ts";
import { bicubicResize } from "../metrics/resize.ts";
import { ssimY } from "../metrics/ssim.ts";
import type { Model } from "./model.ts";
import { type RunOptions, TileRunner } from "./tiles.ts";

/** Quality of one image. */
export interface ImageScore {
  readonly name: string;
  readonly psnr: number;
  readonly ssim: number;
}

/** Means over a folder, and each image. */
export interface Evaluation {
  readonly psnr: number;
  readonly ssim: number;
  /** Bicubic only: mean dB on luma alone, the protocol of published bicubic rows. */
  readonly psnrLuma?: number;
  readonly images: readonly ImageScore[];
  readonly seconds: number;
}

/**
 * Upscales the LR twin of each HR image and compares on the Y channel of 8-bit images, `scale`
 * border pixels left out. `model` null means bicubic interpolation. LR images come from `lrDir`, or
 * are made by MATLAB's bicubic.
 */
export async function evaluateFolder(
  model: Model | null,
  scale: number,
  hrDir: string,
  lrDir: string | undefined,
  options: RunOptions & { readonly device?: "cpu" | "cuda" },
): Promise<Evaluation> {
  const began = performance.now();
  const images: ImageScore[] = [];
  let luma = 0;
  const pairs = await pairImages(hrDir, lrDir ?? null, scale);
  const runner = model && new TileRunner(model, options.device);
  for (const [i, pair] of pairs.entries()) {
    options.signal?.throwIfAborted();
    const { hr, lr }: LoadedPair = await loadPair(pair, scale);
    const sr = runner ? await upscaleRgb(runner, lr, options) : bicubic(lr, scale);
    images.push({ name: pair.name, psnr: psnrY(sr, hr, scale), ssim: ssimY(sr, hr, scale) });
    if (!runner) luma += bicubicLumaPsnr(hr, scale) / pairs.length;
    options.onProgress?.((i + 1) / pairs.length);
  }
  const mean = (key: "psnr" | "ssim"): number =>
    images.reduce((sum, image) => sum + image[key], 0) / images.length;
  return {
    psnr: mean("psnr"),
    ssim: mean("ssim"),
    ...(runner ? {} : { psnrLuma: luma }),
    images,
    seconds: (performance.now() - began) / 1000,
  };
}

/** Runs an image through the network as 8-bit RGB: clamp and round half to even at the end. */
export async function upscaleRgb(
  runner: TileRunner,
  lr: RasterImage,
  options: RunOptions,
): Promise<RasterImage> {
  const data = Float32Array.from(toRgbFloat(lr));
  const { onProgress: _, ...quiet } = options;
  const out = await runner.run({ data, width: lr.width, height: lr.height }, quiet);
  return fromRgbFloat(out.data, out.width, out.height, 8);
}

function bicubic(lr: RasterImage, scale: number): RasterImage {
  const { data, width, height } = bicubicResize(
    lr.data as Uint8Array,
    lr.width,
    lr.height,
    3,
    scale,
  );
  return { data, width, height, channels: 3, depth: 8 };
}
