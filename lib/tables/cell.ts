/**
 * A cell: one measured entry of a table, one JSON file. It says everything that the figure depends
 * on: network and its weights, method and settings, seed, budget, device, and the scores on each
 * data set that was present.
 */

import type { GateKind, Tuning } from "../quant/recipes.ts";

/** The networks of the paper. */
export type NetworkName = "MambaIRv2-light" | "SwinIR-light";

/** What is quantised how; two cells of the same spec differ in seed, budget and weights only. */
export interface CellSpec {
  readonly network: NetworkName;
  readonly scale: number;
  /** 32: nothing is quantised. */
  readonly bits: number;
  /** "bicubic", "full precision", or a name that `spr2q quantize --method` takes. */
  readonly method: string;
  /** Left out where nothing is quantised. */
  readonly settings?: RunSettings;
}

/** Options of `spr2q quantize` that a row fixes; what is left out is the command's default. */
export interface RunSettings {
  readonly recipe?: string;
  readonly scope?: string;
  readonly rank?: number;
  readonly rectifiers?: number;
  /**
   * False: no OSRC steps, the gates are those that RGT trained; "into-rgt": their number is added
   * to RGT's, for controls without gates to calibrate (equal iterations).
   */
  readonly osrc?: false | "into-rgt";
  readonly candidates?: number;
  readonly gate?: GateKind;
  readonly tune?: Tuning;
}

/** Training effort: RGT steps, OSRC steps, patches a step, LR pixels a side. */
export interface Effort {
  readonly iterations: number;
  readonly osrc: number;
  readonly batch: number;
  readonly patch: number;
}

/** Of what is not trained. */
export const NO_EFFORT: Effort = { iterations: 0, osrc: 0, batch: 0, patch: 0 };

/** Quality on one data set. */
export interface Score {
  /** Means over the images: dB on Y, and SSIM. */
  readonly psnr: number;
  readonly ssim: number;
  readonly images: number;
  readonly seconds: number;
}

/**
 * How the result was run: "packed" is the file with sampled routing (seed 0) on whole images;
 * "argmax" the same with argmax routing; "own gates" the tape, each image with its own dynamic gate.
 */
export type Reading = "packed" | "argmax" | "own gates";

/** Scores by data set. */
export type Scores = Readonly<Record<string, Score>>;

/** The file that was quantised, or run as it is. */
export interface Source {
  readonly file: string;
  readonly sha256: string;
  /** Where the weights are from, in words. */
  readonly what: string;
}

/** One measured cell, as its JSON file holds it. */
export interface Cell extends CellSpec {
  readonly format: typeof CELL_FORMAT;
  readonly seed: number;
  /** Zero in all parts where nothing was trained. */
  readonly budget: Effort;
  readonly weights: Source | null;
  /** Name and number of images of the training folder. */
  readonly train: { readonly folder: string; readonly images: number } | null;
  readonly device: string;
  /** Wall-clock and processor seconds of quantising, evaluation left out. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Bytes of the packed file; null where nothing is quantised. */
  readonly bytes: number | null;
  /** Why there is no model, for example that training diverged. */
  readonly failed?: string;
  readonly readings: Readonly<Partial<Record<Reading, Scores>>>;
  /** Other figures by name, with the unit in it (Table 4: "Milliseconds of ..."). */
  readonly figures?: Readonly<Record<string, number>>;
  /** ISO date of the last change. */
  readonly date: string;
  readonly version: string;
}

/** Version of the cell files. */
export const CELL_FORMAT = 1;

/** Settings in one order, absent ones left out, so that equal settings are equal texts. */
function settingsText(settings: RunSettings = {}): string {
  const entries = Object.entries(settings).filter(([, value]) => value !== undefined);
  return JSON.stringify(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Whether two specs are the same. */
export function sameSpec(a: CellSpec, b: CellSpec): boolean {
  const keys = ["network", "scale", "bits", "method"] as const;
  return keys.every((k) => a[k] === b[k]) && settingsText(a.settings) === settingsText(b.settings);
}

/** "100x4x32", with the OSRC steps behind a plus where there are any; "none" without training. */
export function effortText({ iterations, osrc, batch, patch }: Effort): string {
  if (iterations === 0 && osrc === 0) return "none";
  return `${iterations}${osrc ? `+${osrc}` : ""}x${batch}x${patch}`;
}

/** Name of a cell's file without ".json": spec, seed, budget, and the weights' first bytes. */
export function cellId(spec: CellSpec, seed: number, budget: string, sha256: string): string {
  const settings = Object.entries(spec.settings ?? {})
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      if (key === "recipe" || key === "scope") return `${value}`;
      return value === false ? `no-${key}` : `${key}-${value}`;
    });
  const words = [
    spec.network,
    `x${spec.scale}`,
    ...(spec.bits === 32 ? [] : [`${spec.bits}bit`]),
    spec.method,
    ...settings,
    ...(spec.method === "bicubic" ? [] : [`seed-${seed}`]),
    ...(spec.settings ? [budget] : []),
    sha256.slice(0, 8),
  ];
  return words
    .filter((word) => word !== "")
    .join("_")
    .replaceAll(" ", "-")
    .toLowerCase();
}
