/**
 * The two stages of SPR2Q as async iterators of events: rectifier group training (RGT) moves
 * bounds, rectifiers and gates; one-shot rectifier calibration (OSRC, Eq. 12) then moves the gates
 * alone and keeps them only where the calibration loss fell.
 */
import { Graph } from "../autograd.ts";
import { assign, readable } from "../device.ts";
import { Spr2qError } from "../errors.ts";
import type { Network } from "../models/network.ts";
import { type Recipe, scheduleAt } from "../quant/recipes.ts";
import { gatesOf } from "../quant/rectifier.ts";
import type { Student } from "../quant/student.ts";
import { gateTrainables, trainablesOf } from "./trainables.ts";
import type { Memory } from "../tensor.ts";
import { Adam } from "./adam.ts";
import { distill, type Losses } from "./distill.ts";
import type { Stage, TrainEvent } from "./events.ts";
import type { PatchSource } from "./patches.ts";

export interface StageContext {
  readonly memory: Memory;
  readonly teacher: Network;
  readonly student: Student;
  readonly source: PatchSource;
  readonly recipe: Recipe;
  readonly seed: number;
  readonly signal?: AbortSignal;
  /** Steps between calls of `save`; called at the end and on an abort too. */
  readonly saveEvery: number;
  readonly save: (stage: Stage, adam: Adam, iteration: number) => Promise<TrainEvent>;
  /** Gates and loss at the start of OSRC; a resumed run brings them along, runOsrc sets them. */
  osrcStart: OsrcStart | null;
  /** dB on a held-out crop, or null where none is held out. */
  readonly heldOut: () => Promise<number> | null;
}

/** What OSRC must beat, and returns to where it does not. */
export interface OsrcStart {
  readonly loss: number;
  readonly logits: ReadonlyMap<string, Float32Array>;
}

/** Routing table entry: gates of one rectified layer. */
export interface RoutingTable {
  readonly layers: Readonly<Record<string, readonly number[]>>;
  /** Mean calibration loss before and after OSRC; null where OSRC did not run. */
  readonly lossBefore: number | null;
  readonly lossAfter: number | null;
  readonly kept: "calibrated" | "trained";
}

/** Batches on which OSRC compares the gates before and after. */
const CALIBRATION_BATCHES = 4;
/** Steps between two held-out measurements. */
const EVAL_EVERY = 100;

/** RGT from iteration `from`; `adam` carries the optimiser state of a resumed run. */
export async function* runRgt(
  c: StageContext,
  adam: Adam,
  from: number,
): AsyncGenerator<TrainEvent> {
  yield* runStage(c, "rgt", adam, from, c.recipe.iterations, c.recipe.featureWeight);
}

/** What an optimiser is made from. */
type Stepping = Pick<StageContext, "student" | "recipe" | "source" | "memory">;

export function rgtOptimiser(c: Stepping): Adam {
  const { recipe, student } = c;
  const { beta1, beta2 } = recipe;
  const epsilon = recipe.epsilon(c.source.scale, recipe.patch);
  return new Adam(trainablesOf(student.sites, recipe), { beta1, beta2, epsilon }, c.memory);
}

export function osrcOptimiser(c: Stepping): Adam {
  const { recipe, student } = c;
  const settings = {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: recipe.epsilon(c.source.scale, recipe.patch),
  };
  return new Adam(gateTrainables(student.sites, recipe), settings, c.memory);
}

/** OSRC; returns the routing table. Gates that did not lower the calibration loss are put back. */
export async function* runOsrc(
  c: StageContext,
  adam: Adam,
  from: number,
): AsyncGenerator<TrainEvent, RoutingTable> {
  const groups = [...c.student.sites.rectifiers];
  if (c.student.sites.gates.size > 0) freezeGates(c);
  let [lossBefore, lossAfter]: (number | null)[] = [null, null];
  let kept: RoutingTable["kept"] = "trained";
  if (groups.length > 0 && c.recipe.osrcIterations > 0) {
    const start = c.osrcStart ?? {
      loss: calibrationLoss(c),
      logits: new Map(
        groups.map(([key, { logits }]) => [key, Float32Array.from(readable(logits.data))]),
      ),
    };
    c.osrcStart = start;
    lossBefore = start.loss;
    yield* runStage(c, "osrc", adam, from, c.recipe.osrcIterations, c.recipe.featureWeight);
    lossAfter = calibrationLoss(c);
    if (lossAfter <= lossBefore) kept = "calibrated";
    else for (const [key, group] of groups) assign(group.logits.data, start.logits.get(key)!);
  }
  const layers = Object.fromEntries(groups.map(([key, group]) => [key, gatesOf(group)]));
  return { layers, lossBefore, lossAfter, kept };
}

/**
 * Replaces dynamic gates by static ones: logits = log(mean gate over the calibration batches). A
 * router's gate never sees a token in training (routes are replayed) and stays uniform.
 */
function freezeGates(c: StageContext): void {
  const { sites } = c.student;
  const totals = new Map<string, Float64Array>();
  sites.gateTap = (key, gates) => {
    const total = totals.get(key) ?? new Float64Array(gates.length);
    gates.forEach((gate, i) => {
      total[i] += gate;
    });
    totals.set(key, total);
  };
  calibrationLoss(c);
  sites.gateTap = null;
  sites.gates.clear();
  for (const [key, total] of totals) {
    const means = total.map((sum) => Math.log(sum / CALIBRATION_BATCHES));
    assign(sites.rectifiers.get(key)!.logits.data, Float32Array.from(means));
  }
}

function calibrationLoss(c: StageContext): number {
  let total = 0;
  for (let i = 0; i < CALIBRATION_BATCHES; i++) {
    const { low } = c.source.draw(c.recipe.batch, c.recipe.patch, c.seed + 0xca1, i);
    total += distill(
      c.memory,
      c.teacher,
      c.student,
      low,
      c.recipe.featureWeight,
      c.seed + i,
      false,
    ).loss;
  }
  return total / CALIBRATION_BATCHES;
}

async function* runStage(
  c: StageContext,
  stage: "rgt" | "osrc",
  adam: Adam,
  from: number,
  iterations: number,
  featureWeight: number,
): AsyncGenerator<TrainEvent> {
  if (iterations === 0) return;
  yield { type: "stage", stage, iterations };
  const graph = new Graph("running", c.memory);
  const offset = stage === "rgt" ? 0 : 1_000_000;
  const began = performance.now();
  for (let at = from; at < iterations; at++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (c.signal?.aborted) {
      yield await c.save(stage, adam, at);
      throw new Spr2qError(
        "ERR_ABORTED",
        `Stopped after ${at} of ${iterations} ${stage} iterations; ` +
          "the checkpoint is written, --resume goes on from it.",
        { cause: c.signal.reason },
      );
    }
    const { low } = c.source.draw(c.recipe.batch, c.recipe.patch, c.seed, offset + at);
    const losses: Losses = distill(
      c.memory,
      c.teacher,
      c.student,
      low,
      featureWeight,
      offset + at,
      true,
    );
    if (!Number.isFinite(losses.loss)) {
      throw new Spr2qError(
        "ERR_NATIVE",
        `Training diverged at ${stage} iteration ${at}: the loss is ` +
          `${losses.loss}. Lower the rates of the recipe or choose another --seed.`,
      );
    }
    const rate = scheduleAt(c.recipe.schedule, at, iterations);
    adam.step(graph, rate);
    const done = at + 1;
    const secondsLeft = ((performance.now() - began) / 1000 / (done - from)) * (iterations - done);
    yield { type: "step", stage, iteration: done, iterations, ...losses, rate, secondsLeft };
    if (done % EVAL_EVERY === 0 || done === iterations) {
      const psnr = await c.heldOut();
      if (psnr !== null) yield { type: "eval", stage, iteration: done, psnr };
    }
    if (done % c.saveEvery === 0 || done === iterations) yield await c.save(stage, adam, done);
  }
  graph.dispose();
}
