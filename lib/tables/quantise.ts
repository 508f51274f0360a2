/** The one place where the tables quantise: the same entry as `spr2q quantize`. */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Spr2qError } from "../errors.ts";
import type { Model } from "../infer/model.ts";
import type { Scope } from "../quant/policy.ts";
import type { RecipeName } from "../quant/recipes.ts";
import { type QuantizeOptions, type QuantizeResult, quantizeModel } from "../methods/quantize.ts";
import { METHODS } from "../methods/registry.ts";
import { readEvents, type TrainEvent } from "../train/events.ts";
import { type Budget, effortOfMinutes } from "./budget.ts";
import { type CellSpec, type Effort, NO_EFFORT } from "./cell.ts";
import type { Workshop } from "./workshop.ts";

/** Why `spr2q quantize` could not make a cell here, or null. */
export function cannotQuantise({ method, network }: CellSpec, model: Model): string | null {
  const known = METHODS.find(({ name }) => name === method);
  if (!known) return `method ${method} is not in this version`;
  const fits = known.architectures.includes(model.net.architecture.name);
  return fits ? null : `method ${method} is not defined on ${network}`;
}

/** Steps from which a pace is taken; the first is left out, since it warms caches. */
const PACE_STEPS = 4;

function optionsOf(
  spec: CellSpec,
  seed: number,
  { iterations, osrc, batch, patch }: Effort,
  shop: Workshop,
  out: string,
): QuantizeOptions {
  const { settings } = spec;
  return {
    bits: spec.bits,
    train: shop.train,
    out,
    method: spec.method,
    recipe: settings?.recipe as RecipeName | undefined,
    scope: settings?.scope as Scope | undefined,
    rank: settings?.rank ?? 8,
    rectifiers: settings?.rectifiers ?? 4,
    candidates: settings?.candidates,
    gate: settings?.gate,
    tuning: settings?.tune,
    iterations: settings?.osrc === "into-rgt" ? iterations + osrc : iterations,
    osrc: settings?.osrc === undefined ? osrc : 0,
    batch,
    patch,
    seed,
    signal: shop.signal,
    version: shop.version,
  };
}

async function drain(
  run: AsyncGenerator<TrainEvent, QuantizeResult>,
  each: (event: TrainEvent) => void | Promise<void>,
): Promise<QuantizeResult> {
  try {
    let step = await run.next();
    for (; !step.done; step = await run.next()) await each(step.value);
    return step.value;
  } finally {
    await run.return(undefined as never); // where `each` threw it still holds its log
  }
}

/** Where a cell is quantised. */
export interface Bench {
  readonly folder: string;
  /** The cell's, for progress. */
  readonly id: string;
  /** Called behind every checkpoint: a run that is killed goes on from the last one. */
  readonly onCheckpoint: () => Promise<void>;
}

/** Quantises into a folder, going on from its checkpoint; says what was run. */
export async function quantiseFor(
  spec: CellSpec,
  seed: number,
  model: Model,
  effort: Effort,
  shop: Workshop,
  { folder, id, onCheckpoint }: Bench,
): Promise<{ result: QuantizeResult; ran: Effort }> {
  const options = optionsOf(spec, seed, effort, shop, folder);
  const show = async (event: TrainEvent): Promise<void> => {
    if (event.type === "checkpoint") await onCheckpoint();
    if (event.type !== "step") return;
    const { stage, iteration, iterations, loss } = event;
    const note = `loss ${loss.toFixed(5)}`;
    shop.onStep({
      label: `${id}: ${stage}`,
      done: iteration,
      total: iterations,
      unit: "iterations",
      note,
    });
  };
  const checkpoint = join(folder, "checkpoint.safetensors");
  const resume = existsSync(checkpoint);
  try {
    const result = await drain(quantizeModel(model, { ...options, resume }), show);
    return { result, ran: stepsOf(folder, effort) };
  } catch (error) {
    // A checkpoint of an older version's recipe: the cell is made anew, not mixed.
    const foreign = resume && error instanceof Spr2qError && error.code === "ERR_RESUME";
    if (!foreign) throw error;
    await rm(checkpoint);
    const result = await drain(quantizeModel(model, options), show);
    return { result, ran: stepsOf(folder, effort) };
  }
}

/** The steps that a finished run's log tells of: a method may have other stages, or none. */
function stepsOf(folder: string, { batch, patch }: Effort): Effort {
  // By stage: one in which a run was stopped is told of again when the run goes on.
  const steps = new Map<string, number>();
  for (const event of readEvents(join(folder, "log.jsonl")))
    if (event.type === "stage") steps.set(event.stage, event.iterations);
  const total = [...steps.values()].reduce((sum, count) => sum + count, 0);
  if (total === 0) return NO_EFFORT;
  const osrc = steps.get("osrc") ?? 0;
  return { iterations: total - osrc, osrc, batch, patch };
}

/** The effort that a budget in minutes buys, from the pace of a few steps made in `folder`. */
export async function paceOf(
  spec: CellSpec,
  model: Model,
  shop: Workshop,
  budget: Extract<Budget, { kind: "minutes" }>,
  folder: string,
): Promise<Effort> {
  const { batch, patch } = budget;
  const effort = { iterations: PACE_STEPS, osrc: 0, batch, patch };
  const times: number[] = [];
  await drain(quantizeModel(model, optionsOf(spec, 0, effort, shop, folder)), (event) => {
    if (event.type === "step") times.push(performance.now());
  });
  await rm(folder, { recursive: true, force: true });
  const seconds = (times[times.length - 1] - times[0]) / 1000 / (times.length - 1);
  return effortOfMinutes(budget, seconds);
}
