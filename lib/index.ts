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
export type { ImageRows, Rows } from "./infer/rows.ts";
export type { TileChoice } from "./infer/budget.ts";
export type { RoutingMode } from "./nn/routing.ts";
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
export type { Method, RoutingTable } from "./train/method.ts";
export type { Leads, Scope } from "./quant/policy.ts";
export {
  type GateKind,
  type Rates,
  RECIPES,
  type Recipe,
  type RecipeName,
  type Tuning,
} from "./quant/recipes.ts";
export type {
  CheckpointEvent,
  DoneEvent,
  EvalEvent,
  Position,
  RouteEvent,
  Stage,
  StageEvent,
  StartEvent,
  StateEvent,
  StepEvent,
  TrainEvent,
} from "./train/events.ts";
export type { EventRun } from "./events.ts";

/* Measuring */
export {
  evaluate,
  type EvaluateOptions,
  type Evaluation,
  evaluateFolder,
  type ImageScore,
  type ScoreEvent,
  type ScoreOptions,
} from "./infer/evaluate.ts";
export { psnrY } from "./metrics/psnr.ts";
export { ssimY } from "./metrics/ssim.ts";

/* Images and files */
export {
  type DecodeOptions,
  decodePng,
  encodePng,
  type ImageShape,
  type RasterImage,
  readPng,
} from "./io/png.ts";
export { decodeImage, outlineBytes, readImage } from "./io/pictures.ts";
export { readWeights, type WeightFile } from "./io/weights.ts";
export type { HostTensor, TensorMap } from "./io/host_tensor.ts";

/* CPU or GPU */
export type { DeviceChoice } from "./device.ts";

/* Errors */
export { ERROR_CODES, type ErrorCode, Spr2qError } from "./errors.ts";
