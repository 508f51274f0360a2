/**
 * spr2q as a library: low-bit image super-resolution.
 *
 *   import { Upscaler, decodePng } from "spr2q";
 *   const upscaler = await Upscaler.load("model.safetensors");
 *   const image = await upscaler.run(decodePng(bytes, "in.png"));
 */

/* Upscaling: run() in memory, stream() and png() band by band, save() into a file of any size */
export { Upscaler } from "./infer/upscaler.ts";
export type {
  Band,
  LoadOptions,
  RunImageOptions,
  Saved,
  Stats,
  UpscaleOptions,
  UpscalerOptions,
} from "./infer/settings.ts";
export type { ImageRows } from "./infer/rows.ts";
export type { SharedModel } from "./infer/share.ts";
export type { RunMessage } from "./infer/calls.ts";
export { type Model, openModel } from "./infer/model.ts";
export type { Tiling } from "./infer/tiles.ts";
export { setThreads } from "./binding.ts";

/* Quantising: await it, or go through its events */
export {
  quantize,
  type QuantizeOptions,
  type QuantizeRequest,
  type QuantizeResult,
  quantizeModel,
} from "./methods/quantize.ts";
export { METHODS, methodNamed } from "./methods/registry.ts";
export type { Method } from "./train/method.ts";
export type { Leads, Scope } from "./quant/policy.ts";
export { RECIPES, type Recipe, type RecipeName } from "./quant/recipes.ts";
export type { TrainEvent } from "./train/events.ts";
export type { EventRun } from "./events.ts";

/* Measuring */
export {
  evaluate,
  type EvaluateOptions,
  type Evaluation,
  evaluateFolder,
  type ImageScore,
  type ScoreEvent,
} from "./infer/evaluate.ts";
export { psnrY } from "./metrics/psnr.ts";
export { ssimY } from "./metrics/ssim.ts";

/* Images and files */
export { decodePng, encodePng, type ImageShape, type RasterImage, readPng } from "./io/png.ts";
export { decodeImage, outlineBytes, readImage } from "./io/pictures.ts";
export { readWeights } from "./io/weights.ts";

/* Errors */
export { ERROR_CODES, type ErrorCode, Spr2qError } from "./errors.ts";
