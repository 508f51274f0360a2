/** Quantisation as the library offers it: a method by name, run on a model. */
import { packageVersion } from "../binding.ts";
import { EventRun } from "../events.ts";
import { type Model, openModel } from "../infer/model.ts";
import type { TrainEvent } from "../train/events.ts";
import type { RunOptions } from "../train/request.ts";
import { type QuantizeResult, runMethod } from "../train/run.ts";
import { methodNamed } from "./registry.ts";

export type { QuantizeResult } from "../train/run.ts";

/** A run, and the method that runs. */
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

/** What must be said: the bits, a folder of HR images, and where the results go. */
export type QuantizeRequest = Pick<QuantizeOptions, "bits" | "train" | "out"> &
  Partial<QuantizeOptions>;

/**
 * Quantises the weights and activations of a full-precision model (a file, or one that
 * {@link openModel} opened) to 8, 4, 2 or 1 bit, by SPR2Q unless another method
 * is named. Await the result for model.safetensors and table.json in `out`, or go through the events
 * first: "start", "stage", "step", "eval", "checkpoint", "route", "done".
 *
 * It computes on the thread that calls it, step by step: a server should do this in a worker. Rejects
 * with ERR_ARGUMENT for a model that is quantised already or a method that does not exist, ERR_DATA
 * where `train` has too few or too small images, ERR_RESUME for a checkpoint of another run, ERR_IO,
 * ERR_ABORTED once `signal` fires (a checkpoint is left, from which `resume` goes on to the same
 * bytes), and those of openModel.
 */
export function quantize(
  source: string | Model,
  options: QuantizeRequest,
): EventRun<TrainEvent, QuantizeResult> {
  const run = async function* (): AsyncGenerator<TrainEvent, QuantizeResult> {
    const model = typeof source === "string" ? await openModel(source) : source;
    const defaults = { rank: 8, rectifiers: 4, seed: 0, version: packageVersion() };
    return yield* quantizeModel(model, { ...defaults, ...options });
  };
  return new EventRun(run());
}
