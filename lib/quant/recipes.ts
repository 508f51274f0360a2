/**
 * Recipes: one name each for everything that a quantisation run fixes beside bits and data.
 * `paper` and `released` are what the text and the authors' code say; `best` is this project's own
 * (specs: mean L1 + small relative feature loss, relative rates for bounds); `quick` is `best`, cut.
 */
import type { Scope } from "./policy.ts";
import type { RectifierInit } from "./rectifier.ts";

/** A schedule of training with its rates and losses; see the head of this file. */
export interface Recipe {
  /** Its name in {@link RECIPES}. */
  readonly name: RecipeName;
  /** Steps of RGT, which trains bounds, rectifiers and gates (lib/quant/README.md). */
  readonly iterations: number;
  /** Steps of OSRC, which trains the gates alone. */
  readonly osrcIterations: number;
  /** Patches of a step. */
  readonly batch: number;
  /** LR pixels a side. */
  readonly patch: number;
  /** Places looked at for each patch of RGT and OSRC; the one with most detail is taken. */
  readonly candidates: (bits: number) => number;
  /** Adam's decay of the first moment. */
  readonly beta1: number;
  /** Adam's decay of the second moment. */
  readonly beta2: number;
  /** Adam's epsilon for plain mean-L1; `released` carries the authors' loss scale in it. */
  readonly epsilon: (scale: number, patch: number) => number;
  /** Of the rates: a half cosine down to 0, or none. */
  readonly schedule: "cosine" | "constant";
  /** Adam's rates in RGT. */
  readonly rates: (bits: number, scope: Scope) => Rates;
  /** Whether a bound's rate is a fraction of its site's range. */
  readonly relativeBounds: boolean;
  /** Adam's rate in OSRC. */
  readonly osrcRate: number;
  /** Weight of the mean relative squared error of the layers' outputs. */
  readonly featureWeight: number;
  /** From where rectifiers start. */
  readonly rectifierInit: RectifierInit;
  /** How rectifiers are gated. */
  readonly gate: GateKind;
  /** What moves a weight. */
  readonly tuning: Tuning;
  /** Patches of the calibration batch, at `patch` pixels a side or 64, whichever is larger. */
  readonly calibrationPatches: number;
}

/**
 * Gates of the RGT stage: logits of their own, the paper's network on the layer's input, or (a
 * control) one over the number of rectifiers, never trained.
 */
export type GateKind = "static" | "dynamic" | "uniform";

/** What moves a rectified layer's weight: a group of rectifiers, or (a control) every entry itself. */
export type Tuning = "rectifiers" | "weights";

/** Adam's rates in RGT. */
export interface Rates {
  /** Step of a bound: as a fraction of its site's range, or absolute. */
  readonly bound: number;
  /** Step of A, B and gates. */
  readonly rectifier: number;
}

/**
 * Step of a directly tuned weight as a fraction of its layer's root mean square. Measured on Set5 x2
 * after 70 steps of 4 patches of 32x32, one seed: 2 bit 35.94, 36.08 and 35.62 dB at 1e-2, 3e-2 and
 * 1e-1; 4 bit 37.75 and 37.67 at 3e-3 and 1e-2. Other widths take their neighbour's.
 */
export const weightRate = (bits: number): number => (bits <= 2 ? 3e-2 : 3e-3);

/** Names of {@link RECIPES}. */
export type RecipeName = "paper" | "released" | "best" | "quick";

/**
 * The fewer the codes, the farther a weight must move to reach another one. Measured on Set5 x2
 * after 400 steps of 4 patches of 32x32, against rates of 4e-3 and 1e-3 for all bits: +0.04 dB at
 * 4 bit, +0.86 at 1 bit, and +0.3 at 2 bit over 500 steps at those rates. Higher rectifier rates
 * lost 0.04 dB at 4 bit (8e-3) and 0.01 at 2 bit (1.6e-2).
 */
const RATES: Readonly<Record<number, Rates>> = {
  1: { bound: 2e-2, rectifier: 1.6e-2 },
  2: { bound: 1e-2, rectifier: 8e-3 },
  4: { bound: 1e-2, rectifier: 3e-3 },
  8: { bound: 4e-3, rectifier: 1e-3 },
};

/**
 * With few codes, what a patch of sky has to teach is soon learned. Measured on Set5 x2 after 100
 * steps of 4 patches of 32x32, seed 0: 36.37, 36.57, 36.42 and 36.36
 * dB with 1, 4, 8 and 16 places at 2 bit, 34.88 and 35.17 with 1 and 8 at 1 bit; at 4 bit 37.78 and
 * 37.69 with 1 and 4.
 */
const candidatesOf = (bits: number): number => (bits <= 2 ? 4 : 1);

/** With the scan's operands at 1 bit too, the rates above reach NaN within 100 steps. */
const RELEASED_1_BIT: Rates = { bound: 4e-3, rectifier: 4e-3 };

const fixedRates = (): Rates => ({ bound: 1e-2, rectifier: 1e-2 });

const best: Recipe = {
  name: "best",
  iterations: 12_000,
  osrcIterations: 500,
  batch: 8,
  patch: 64,
  candidates: candidatesOf,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: () => 1e-8,
  schedule: "cosine",
  rates: (bits, scope) => (bits === 1 && scope === "released" ? RELEASED_1_BIT : RATES[bits]),
  relativeBounds: true,
  osrcRate: 1e-2,
  featureWeight: 0.02,
  rectifierInit: "lora",
  gate: "static",
  tuning: "rectifiers",
  calibrationPatches: 8,
};

/** The table of recipes. */
export const RECIPES: Readonly<Record<RecipeName, Recipe>> = {
  best,
  quick: { ...best, name: "quick", iterations: 1000, osrcIterations: 40, batch: 4, patch: 32 },
  paper: {
    ...best,
    name: "paper",
    candidates: () => 1,
    beta2: 0.999,
    rates: fixedRates,
    relativeBounds: false,
    featureWeight: 0.01,
    rectifierInit: "reference",
    gate: "dynamic",
    calibrationPatches: 32,
  },
  released: {
    ...best,
    name: "released",
    candidates: () => 1,
    beta2: 0.999,
    epsilon: (scale, patch) => 1e-8 * 3 * (scale * patch) ** 2,
    schedule: "constant",
    rates: fixedRates,
    relativeBounds: false,
    featureWeight: 0,
    rectifierInit: "reference",
    calibrationPatches: 32,
  },
};

/** Rate factor of iteration `at` (from 0) of `count`. */
export function scheduleAt(schedule: Recipe["schedule"], at: number, count: number): number {
  return schedule === "constant" ? 1 : 0.5 * (1 + Math.cos((Math.PI * at) / count));
}
