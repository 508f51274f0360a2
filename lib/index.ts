/**
 * spr2q as a library: low-bit image super-resolution.
 *
 *   import { Upscaler, decodePng } from "spr2q";
 *   const upscaler = await Upscaler.load("model.safetensors");
 *   const image = await upscaler.run(decodePng(bytes, "in.png"));
 */

/* Upscaling: run() in memory, save() into a file of any size */
export {
  type Saved,
  type UpscaleOptions,
  Upscaler,
  type UpscalerOptions,
} from "./infer/upscaler.ts";
export { type Model, openModel } from "./infer/model.ts";
export type { Tiling } from "./infer/tiles.ts";

/* Quantising */
export { type QuantizeOptions, type QuantizeResult, quantizeModel } from "./methods/quantize.ts";
export { METHODS, methodNamed } from "./methods/registry.ts";
export type { Method } from "./train/method.ts";
export type { Leads, Scope } from "./quant/policy.ts";
export { RECIPES, type Recipe, type RecipeName } from "./quant/recipes.ts";
export type { TrainEvent } from "./train/events.ts";

/* Measuring */
export { type Evaluation, evaluateFolder, type ImageScore } from "./infer/evaluate.ts";
export { psnrY } from "./metrics/psnr.ts";
export { ssimY } from "./metrics/ssim.ts";

/* Images and files */
export { decodePng, encodePng, type RasterImage, readPng } from "./io/png.ts";
export { readWeights } from "./io/weights.ts";

/* Errors */
export { ERROR_CODES, type ErrorCode, Spr2qError } from "./errors.ts";
