/** Quantising a model as a library call: defaults, and events that can be awaited. */
import { packageVersion } from "../binding.ts";
import { EventRun } from "../events.ts";
import { type Model, openModel } from "../infer/model.ts";
import type { TrainEvent } from "./events.ts";
import { type QuantizeOptions, type QuantizeResult, quantizeModel } from "./run.ts";

/** What must be said: the bits, a folder of HR images, and where the results go; see there. */
export type QuantizeRequest = Pick<QuantizeOptions, "bits" | "train" | "out"> &
  Partial<QuantizeOptions>;

/**
 * Quantises the weights and activations of a full-precision model (a file, or one that
 * {@link openModel} opened) to 8, 4, 2 or 1 bit, by SPR2Q: arXiv 2605.16919. Await the result for
 * model.safetensors and table.json in `out`, or go through the events first: "start", "stage",
 * "step", "eval", "checkpoint", "route", "done".
 *
 * It computes on the thread that calls it, step by step: a server should do this in a worker. Rejects
 * with ERR_ARGUMENT for a model that is quantised already, ERR_DATA where `train` has too few or too
 * small images, ERR_RESUME for a checkpoint of another run, ERR_IO, ERR_ABORTED once `signal` fires
 * (a checkpoint is left, from which `resume` goes on to the same bytes), and those of openModel.
 */
export function quantize(
  source: string | Model,
  options: QuantizeRequest,
): EventRun<TrainEvent, QuantizeResult> {
  const defaults = { recipe: "best", scope: "best", rank: 8, rectifiers: 4, seed: 0 } as const;
  const run = async function* (): AsyncGenerator<TrainEvent, QuantizeResult> {
    const model = typeof source === "string" ? await openModel(source) : source;
    return yield* quantizeModel(model, { ...defaults, version: packageVersion(), ...options });
  };
  return new EventRun(run());
}
