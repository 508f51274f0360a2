/**
 * Recipes: one name each for everything that a quantisation run fixes beside bits and data.
 * `paper` and `released` are what the text and the authors' code say; `best` is this project's own
 * (specs: mean L1 + small relative feature loss, relative rates for bounds); `quick` is `best`, cut.
 */
import type { RectifierInit } from "./rectifier.ts";

export interface Recipe {
  readonly name: RecipeName;
  readonly iterations: number;
  readonly osrcIterations: number;
  readonly batch: number;
  /** LR pixels a side. */
  readonly patch: number;
  readonly beta1: number;
  readonly beta2: number;
  /** Adam's epsilon for plain mean-L1; `released` carries the authors' loss scale in it. */
  readonly epsilon: (scale: number, patch: number) => number;
  readonly schedule: "cosine" | "constant";
  /** Step of a bound: as a fraction of its site's range, or absolute. */
  readonly boundRate: number;
  readonly relativeBounds: boolean;
  readonly rectifierRate: number;
  readonly osrcRate: number;
  /** Weight of the mean relative squared error of the layers' outputs. */
  readonly featureWeight: number;
  readonly rectifierInit: RectifierInit;
  /** Gates of the RGT stage: logits of their own, or the paper's network on the layer's input. */
  readonly gate: "static" | "dynamic";
  /** Patches of the calibration batch, at `patch` pixels a side or 64, whichever is larger. */
  readonly calibrationPatches: number;
}

export type RecipeName = "paper" | "released" | "best" | "quick";

const best: Recipe = {
  name: "best",
  iterations: 12_000,
  osrcIterations: 500,
  batch: 8,
  patch: 64,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: () => 1e-8,
  schedule: "cosine",
  boundRate: 4e-3,
  relativeBounds: true,
  rectifierRate: 1e-3,
  osrcRate: 1e-2,
  featureWeight: 0.02,
  rectifierInit: "lora",
  gate: "static",
  calibrationPatches: 8,
};

/** The table of recipes. */
export const RECIPES: Readonly<Record<RecipeName, Recipe>> = {
  best,
  quick: { ...best, name: "quick", iterations: 500, osrcIterations: 20, batch: 4, patch: 32 },
  paper: {
    ...best,
    name: "paper",
    beta2: 0.999,
    boundRate: 1e-2,
    relativeBounds: false,
    rectifierRate: 1e-2,
    featureWeight: 0.01,
    rectifierInit: "reference",
    gate: "dynamic",
    calibrationPatches: 32,
  },
  released: {
    ...best,
    name: "released",
    beta2: 0.999,
    epsilon: (scale, patch) => 1e-8 * 3 * (scale * patch) ** 2,
    schedule: "constant",
    boundRate: 1e-2,
    relativeBounds: false,
    rectifierRate: 1e-2,
    featureWeight: 0,
    rectifierInit: "reference",
    calibrationPatches: 32,
  },
};

/** Rate factor of iteration `at` (from 0) of `count`. */
export function scheduleAt(schedule: Recipe["schedule"], at: number, count: number): number {
  return schedule === "constant" ? 1 : 0.5 * (1 + Math.cos((Math.PI * at) / count));
}
