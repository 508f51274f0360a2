/**
 * The network being quantised beside its full-precision teacher: rounded float tensors, calibrated
 * bounds, rectifier groups, and the list of what training may move.
 */
import { Var } from "../autograd.ts";
import { halfToFloat32, toFloat16 } from "../io/host_tensor.ts";
import { MambaIRv2 } from "../models/mambairv2.ts";
import type { Trainable } from "../train/adam.ts";
import { generator } from "../train/patches.ts";
import { floatsFrom, type Memory } from "../tensor.ts";
import { calibrate, rectifiedKeys } from "./calibrate.ts";
import type { Bounds } from "./codes.ts";
import { createGate } from "./gate.ts";
import type { Policy } from "./policy.ts";
import type { Recipe } from "./recipes.ts";
import { createRectifiers } from "./rectifier.ts";
import { QuantisedSites } from "./sites.ts";

export interface Student {
  readonly net: MambaIRv2;
  readonly sites: QuantisedSites;
}

/** How a student's rectifier groups are made; experts = 0 leaves them out. */
export interface GroupShape {
  readonly experts: number;
  readonly rank: number;
}

/** Keys of tensors that a packed file stores as codes under `policy`, and so are not rounded. */
export function codedTensor(name: string, quantisesCpe: boolean): boolean {
  if (/\.bias$|norm/.test(name)) return false;
  if (/CPE/.test(name)) return quantisesCpe;
  return /wqkv|win_mhsa\.proj|convffn|assm\.(in_proj|out_proj|route)|x_proj_weight|dt_projs_weight|embedding/.test(
    name,
  );
}

/** `teacher`'s weights, the float ones rounded to half precision as the packed file stores them. */
export function roundedCopy(teacher: MambaIRv2, policy: Policy): MambaIRv2 {
  const weights = new Map<string, Var>();
  for (const [name, { data, shape }] of teacher.weights) {
    const coded = codedTensor(name, policy.scope === "released");
    const values = coded ? floatsFrom(data) : floatsFrom(halfToFloat32(toFloat16(data)));
    weights.set(name, new Var(values, shape));
  }
  return new MambaIRv2(teacher.config, weights);
}

/** A calibrated student with fresh rectifiers. */
export function createStudent(
  memory: Memory,
  teacher: MambaIRv2,
  policy: Policy,
  recipe: Recipe,
  shape: GroupShape,
  patches: Var,
  seed: number,
): Student {
  const net = roundedCopy(teacher, policy);
  const sites = new QuantisedSites(policy);
  calibrate(memory, net, sites, patches, seed);
  if (shape.experts > 0) {
    rectifiedKeys(net).forEach((key, i) => {
      const [out, cols] = net.get(`${key}.weight`).shape;
      const draw = generator(seed, 0xa11ce, i);
      const group = createRectifiers(
        out,
        cols,
        shape.experts,
        shape.rank,
        recipe.rectifierInit,
        draw,
      );
      sites.rectifiers.set(key, group);
      if (recipe.gate === "dynamic") sites.gates.set(key, createGate(cols, shape.experts, draw));
    });
  }
  return { net, sites };
}

/** Mean over a site's ranges, the unit of its relative rate. */
function rangeOf({ lower, upper, granularity }: Bounds): number {
  if (lower === upper) return upper.data[1] - upper.data[0];
  if (granularity === "column") return upper.data[0];
  const ranges = [...upper.data].map((high, i) => high - lower.data[i]);
  return ranges.reduce((a, b) => a + b, 0) / ranges.length;
}

/** Keeps upper - lower at least 1e-6 max(1, |lower|, |upper|) after a step. */
function keepApart({ lower, upper, granularity }: Bounds): void {
  if (granularity === "column") {
    upper.data[0] = Math.max(upper.data[0], 1e-6);
    return;
  }
  const joint = lower === upper;
  for (let i = 0; i < (joint ? 1 : upper.size); i++) {
    const [low, high] = [lower.data[i], upper.data[joint ? 1 : i]];
    const least = 1e-6 * Math.max(1, Math.abs(low), Math.abs(high));
    if (high - low < least) upper.data[joint ? 1 : i] = low + least * 1.0001;
  }
}

/** Bounds and rectifiers as trainables of the RGT stage. */
export function trainablesOf(sites: QuantisedSites, recipe: Recipe): Trainable[] {
  const list: Trainable[] = [];
  for (const [site, bounds] of sites.bounds) {
    const unit = recipe.relativeBounds ? rangeOf(bounds) : 1;
    const rate = (): number => recipe.boundRate * unit;
    const project = (): void => keepApart(bounds);
    list.push({ name: `${site}.upper`, value: bounds.upper, rate, project });
    if (bounds.lower !== bounds.upper)
      list.push({ name: `${site}.lower`, value: bounds.lower, rate, project });
  }
  const rate = (): number => recipe.rectifierRate;
  for (const [key, group] of sites.rectifiers) {
    list.push({ name: `${key}.rectifier.a`, value: group.a, rate });
    list.push({ name: `${key}.rectifier.b`, value: group.b, rate });
    list.push({ name: `${key}.rectifier.logits`, value: group.logits, rate });
  }
  for (const [key, gate] of sites.gates) {
    for (const part of ["w1", "b1", "w2", "b2"] as const) {
      list.push({ name: `${key}.gate.${part}`, value: gate[part], rate });
    }
  }
  return list;
}

/** The gates alone: trainables of the OSRC stage. */
export function gateTrainables(sites: QuantisedSites, recipe: Recipe): Trainable[] {
  return [...sites.rectifiers].map(([key, group]) => ({
    name: `${key}.rectifier.logits`,
    value: group.logits,
    rate: () => recipe.osrcRate,
  }));
}
