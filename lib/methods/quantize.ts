/** Quantisation as the library offers it: a method by name, run on a model. */
import type { Model } from "../infer/model.ts";
import type { TrainEvent } from "../train/events.ts";
import { type QuantizeResult, runMethod, type RunOptions } from "../train/run.ts";
import { methodNamed } from "./registry.ts";

export type { QuantizeResult } from "../train/run.ts";

export interface QuantizeOptions extends RunOptions {
  /** Name of the method; default "spr2q". */
  readonly method?: string;
}

/**
 * Quantises `model`; yields what happens, returns what was made. ERR_ARGUMENT for a method that does
 * not exist or is not defined on the model's architecture.
 */
export async function* quantizeModel(
  model: Model,
  options: QuantizeOptions,
): AsyncGenerator<TrainEvent, QuantizeResult> {
  return yield* runMethod(model, methodNamed(options.method ?? "spr2q"), options);
}
