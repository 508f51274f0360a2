/** The stage that most methods share: Adam on some leaves of the student, by distillation. */
import { Graph } from "../autograd.ts";
import { scheduleAt } from "../quant/recipes.ts";
import type { Student } from "../quant/student.ts";
import { Adam, type Trainable } from "./adam.ts";
import { distill } from "./distill.ts";
import type { Stage } from "./events.ts";
import type { MethodContext, MethodStage } from "./method.ts";

/** What distinguishes one such stage from another. */
export interface DistillationSettings {
  readonly name: Stage;
  readonly iterations: number;
  readonly trainables: readonly Trainable[];
  /** Leaves of the student that get no gradient in this stage. */
  readonly resting?: readonly Trainable[];
  /** Default: the recipe's. */
  readonly beta1?: number;
  readonly beta2?: number;
  /** Rate factor of step `at`; default: the recipe's schedule. */
  readonly rate?: (at: number) => number;
  /** Places looked at for each patch; default 1. */
  readonly candidates?: number;
  /** Added to the step's number in the draw of its batch: no two stages see the same patches. */
  readonly offset?: number;
  /** Default: the recipe's. */
  readonly featureWeight?: number;
}

/** `iterations` steps of distillation from the context's teacher to `student`. */
export function distillationStage(
  context: MethodContext,
  student: Student,
  settings: DistillationSettings,
): MethodStage {
  const { memory, teacher, source, recipe, seed } = context;
  const { name, iterations, offset = 0, candidates } = settings;
  const moments = {
    beta1: settings.beta1 ?? recipe.beta1,
    beta2: settings.beta2 ?? recipe.beta2,
    epsilon: recipe.epsilon(source.scale, recipe.patch),
  };
  const adam = new Adam(settings.trainables, moments, memory);
  const weight = settings.featureWeight ?? recipe.featureWeight;
  const graph = new Graph("running", memory);
  return {
    name,
    iterations,
    step(at) {
      const { low } = source.draw(recipe.batch, recipe.patch, seed, offset + at, candidates);
      for (const { value } of settings.resting ?? []) value.requiresGrad = false;
      const losses = distill(memory, teacher, student, low, weight, offset + at, true);
      for (const { value } of settings.resting ?? []) value.requiresGrad = true;
      const rate = settings.rate?.(at) ?? scheduleAt(recipe.schedule, at, iterations);
      // A step on gradients that are no numbers would spoil what a checkpoint may still save.
      if (Number.isFinite(losses.loss)) adam.step(graph, rate);
      return { ...losses, rate };
    },
    state: () => adam.state(),
    restore: (state, done) => adam.restore(state, done),
  };
}
