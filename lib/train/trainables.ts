/** What the two stages of SPR2Q may move, and how fast: bounds, rectifiers (or weights), gates. */
import { readable } from "../device.ts";
import type { Bounds } from "../quant/codes.ts";
import { type Recipe, weightRate } from "../quant/recipes.ts";
import type { QuantisedSites } from "../quant/sites.ts";
import type { Trainable } from "./adam.ts";

/** Mean over a site's ranges, the unit of its relative rate. */
function rangeOf({ lower, upper, granularity }: Bounds): number {
  const [low, high] = [readable(lower.data), readable(upper.data)];
  if (lower === upper) return high[1] - high[0];
  if (granularity === "column") return high[0];
  const ranges = [...high].map((end, i) => end - low[i]);
  return ranges.reduce((a, b) => a + b, 0) / ranges.length;
}

/**
 * Share of the range by which a probability's bounds move where other bounds move by the whole: a
 * row of 256 (a window of 16) sums what its codes are off, and attention is scaled by that sum. At the
 * others' rate 60 steps at 4 bit ended 1.2 dB below DOBI on Set5 x2, so 1.0 dB above (RESULTS.md).
 */
const PROBABILITY_SHARE = 1 / 64;

/** Bounds and rectifiers (or increments) as trainables of the RGT stage. */
export function trainablesOf(sites: QuantisedSites, recipe: Recipe): Trainable[] {
  const list: Trainable[] = [];
  const rates = recipe.rates(sites.policy.bits, sites.policy.scope);
  for (const [site, bounds] of sites.bounds) {
    const share = site.endsWith(".p") ? PROBABILITY_SHARE : 1;
    const unit = recipe.relativeBounds ? rangeOf(bounds) * share : 1;
    const rate = (): number => rates.bound * unit;
    list.push({ name: `${site}.upper`, value: bounds.upper, rate, bounds });
    if (bounds.lower !== bounds.upper)
      list.push({ name: `${site}.lower`, value: bounds.lower, rate, bounds });
  }
  const rate = (): number => rates.rectifier;
  for (const [key, group] of sites.rectifiers) {
    list.push({ name: `${key}.rectifier.a`, value: group.a, rate });
    list.push({ name: `${key}.rectifier.b`, value: group.b, rate });
    if (recipe.gate !== "uniform")
      list.push({ name: `${key}.rectifier.logits`, value: group.logits, rate });
  }
  for (const [key, { value, rms }] of sites.increments) {
    list.push({ name: `${key}.increment`, value, rate: () => weightRate(sites.policy.bits) * rms });
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
