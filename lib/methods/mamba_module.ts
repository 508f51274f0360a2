/**
 * What the methods for state-space models share on MambaIRv2: they treat the attentive state-space
 * module, and everything else is DOBI with one range a tensor; then all bounds are trained by
 * 2DQuant's distillation (spr2q-method, row 24: the paper's rows can only be read that way).
 */
import type { Matrix } from "../linalg/matrix.ts";
import type { Network } from "../models/network.ts";
import { copyOf } from "../quant/conditioning.ts";
import type { InputMoments } from "../quant/covariance.ts";
import type { RangeSearch } from "../quant/ranges.ts";
import { dobi } from "../quant/ranges.ts";
import type { SearchFor } from "../quant/calibrate.ts";
import { calibratedStudent, type Student } from "../quant/student.ts";
import { distillationStage } from "../train/distillation_stage.ts";
import type { MethodContext, Prepared } from "../train/method.ts";
import { trainablesOf } from "../train/trainables.ts";

/** Names of the module's parts below a layer's prefix. */
export const NORM = "assm.out_norm";
export const IN_NORM = "norm3";
export const IN_PROJ = "assm.in_proj.0";
export const ROUTER = "assm.route.0";
export const X_PROJ = "assm.selectiveScan.x_proj_weight";
export const DT_PROJ = "assm.selectiveScan.dt_projs_weight";
export const OUT_PROJ = "assm.out_proj";

/** True for sites of the state-space module proper; the router and prompts are not of its line. */
export const inMamba = (site: string): boolean =>
  /assm\.(in_proj|CPE|out_proj|selectiveScan)/.test(site);

/** The search of `own` inside the module, DOBI elsewhere. */
export function searchInside(
  own: (site: string, role: "activation" | "weight" | "probability" | "state") => RangeSearch,
): SearchFor {
  return (site, { role }) => (inMamba(site) ? own(site, role) : dobi);
}

/** sqrt(max |x_j|) / sqrt(max_i |W_ij|): as much of the spread in the weight as in the input. */
export function smoothing({ most }: InputMoments, w: Matrix): Float64Array {
  return most.map((top, j) => {
    let heaviest = 0;
    for (let o = 0; o < w.rows; o++)
      heaviest = Math.max(heaviest, Math.abs(w.data[o * w.cols + j]));
    return Math.sqrt(Math.max(top, 1e-5) / Math.max(heaviest, 1e-5));
  });
}

/** How a method changes the module before and after a student is made from it. */
export interface Transforms {
  /** Changes weights of a full-precision copy; its function must stay. */
  readonly fold?: (net: Network, prefix: string) => void;
  /** Puts online rotations on a layer of the student. */
  readonly turn?: (student: Student, prefix: string) => void;
}

/** A student whose module is transformed and calibrated by `searchFor`, and the training of bounds. */
export function prepareMamba(
  context: MethodContext,
  { fold, turn }: Transforms,
  searchFor: SearchFor,
): Prepared {
  const { memory, teacher, policy, recipe, seed, calibration } = context;
  const net = copyOf(teacher);
  for (const prefix of net.layerPrefixes) fold?.(net, prefix);
  const turned = (student: Student): void => {
    for (const prefix of net.layerPrefixes) turn?.(student, prefix);
  };
  const patches = calibration();
  const student = calibratedStudent(memory, net, policy, patches, seed, searchFor, turned);
  const trainables = trainablesOf(student.sites, recipe);
  const { iterations } = recipe;
  const bounds = distillationStage(context, student, { name: "bounds", iterations, trainables });
  return { student, stages: [bounds] };
}
