/** Runs one stage of a method: steps, held-out measurements and checkpoints, as events. */
import { Spr2qError } from "../errors.ts";
import type { StateEvent, TrainEvent } from "./events.ts";
import type { MethodStage } from "./method.ts";

/** Steps between two held-out measurements, and between two checkpoints. */
const EVERY = 100;

/** About how often a stage tells where bounds and gates are. */
const STATES = 50;

/** What a stage asks of the run that it belongs to. */
export interface StageHooks {
  readonly save: (iteration: number) => Promise<TrainEvent>;
  /** dB on a held-out crop. */
  readonly heldOut: () => number;
  /** Bounds and gates now. */
  readonly state: () => Pick<StateEvent, "ranges" | "largestGate">;
  /** True where the stage goes on from a checkpoint. */
  readonly resumed: boolean;
}

/**
 * The steps of `stage` from `from` on. ERR_ABORTED once `signal` fires (a checkpoint is written
 * first), ERR_NATIVE where the loss is no number any more.
 */
export async function* runStage(
  stage: MethodStage,
  from: number,
  signal: AbortSignal | undefined,
  hooks: StageHooks,
): AsyncGenerator<TrainEvent> {
  const { name, iterations } = stage;
  if (iterations > 0) yield { type: "stage", stage: name, iterations };
  if (!hooks.resumed) stage.begin?.();
  const every = Math.ceil(iterations / STATES);
  const state = (iteration: number): StateEvent => ({
    type: "state",
    stage: name,
    iteration,
    ...hooks.state(),
  });
  if (from === 0 && iterations > 0) yield state(0);
  const began = performance.now();
  for (let at = from; at < iterations; at++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (signal?.aborted) {
      yield await hooks.save(at);
      throw new Spr2qError(
        "ERR_ABORTED",
        `Stopped after ${at} of ${iterations} ${name} iterations; ` +
          "the checkpoint is written, --resume goes on from it.",
        { cause: signal.reason },
      );
    }
    const result = stage.step(at);
    if (!Number.isFinite(result.loss)) {
      throw new Spr2qError(
        "ERR_NATIVE",
        `Training diverged at ${name} iteration ${at}: the loss is ` +
          `${result.loss}. Lower the rates of the recipe or choose another --seed.`,
      );
    }
    const done = at + 1;
    const secondsLeft = ((performance.now() - began) / 1000 / (done - from)) * (iterations - done);
    yield { type: "step", stage: name, iteration: done, iterations, ...result, secondsLeft };
    if (done % every === 0 || done === iterations) yield state(done);
    const pause = done % EVERY === 0 || done === iterations;
    if (pause) yield { type: "eval", stage: name, iteration: done, psnr: hooks.heldOut() };
    if (pause) yield await hooks.save(done);
  }
  stage.end?.();
}
