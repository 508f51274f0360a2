/**
 * Initial bounds of every site: one full-precision pass over a batch of patches, and a range search
 * (DOBI unless said) on what each site sees. Uncalibrated quantisers pass their input through, as the
 * authors' code does.
 */
import { Graph, Var } from "../autograd.ts";
import type { F32, I32 } from "../binding.ts";
import type { Network } from "../models/network.ts";
import { Router } from "../nn/routing.ts";
import type { Memory } from "../tensor.ts";
import { type Bounds, jointBounds } from "./codes.ts";
import { dobi, type RangeSearch } from "./ranges.ts";
import type { QuantisedSites, SiteKind } from "./sites.ts";

/** Activations are thinned to about this many values before the search; extremes stay. */
const SEARCH_VALUES = 400_000;

/** The least step of at least `least` that shares no factor with the sides that tensors have. */
function coprimeStep(least: number): number {
  let step = Math.max(1, Math.ceil(least));
  // A step of 4 over 48 channels would only ever see 12 of them.
  while (step > 1 && [2, 3, 5, 7].some((factor) => step % factor === 0)) step++;
  return step;
}

/** Every k-th row of x (rows, columns), and the two rows that hold its extremes. */
function thin(x: F32, columns: number): F32 {
  const rows = x.length / columns;
  const every = coprimeStep(x.length / SEARCH_VALUES);
  if (every === 1) return x;
  let [least, most] = [0, 0];
  for (let i = 1; i < x.length; i++) {
    if (x[i] < x[least]) least = i;
    if (x[i] > x[most]) most = i;
  }
  const chosen: number[] = [Math.floor(least / columns), Math.floor(most / columns)];
  for (let row = 0; row < rows; row += every) chosen.push(row);
  const result = new Float32Array(chosen.length * columns);
  chosen.forEach((row, i) => {
    result.set(x.subarray(row * columns, (row + 1) * columns), i * columns);
  });
  return result;
}

/** Which search a site's range comes from. */
export type SearchFor = (site: string, kind: SiteKind) => RangeSearch;

/** Keeps a range wide enough to divide by, as training does (design: at least 1e-6 max(1, |bounds|)). */
function widened([low, high]: readonly [number, number]): [number, number] {
  const least = 1e-6 * Math.max(1, Math.abs(low), Math.abs(high));
  return [low, high - low < least ? low + least * 1.0001 : high];
}

/** A range for each place from the values of its tokens. */
function rangesByPlace(
  x: Var,
  places: I32,
  bits: number,
  search: RangeSearch,
): { lower: number[]; upper: number[] } {
  const columns = x.size / places.length;
  const rows = new Map<number, number[]>();
  places.forEach((place, row) => {
    const list = rows.get(place);
    if (list) list.push(row);
    else rows.set(place, [row]);
  });
  const [lower, upper]: [number[], number[]] = [[], []];
  for (const [place, list] of rows) {
    const values = new Float32Array(list.length * columns);
    list.forEach((row, i) => {
      values.set(x.data.subarray(row * columns, (row + 1) * columns), i * columns);
    });
    [lower[place], upper[place]] = widened(search(values, bits));
  }
  return { lower, upper };
}

/** Bounds of one site from what it saw. */
function boundsFor(x: Var, kind: SiteKind, bits: number, search: RangeSearch): Bounds {
  const trainable = (values: ArrayLike<number>): Var =>
    new Var(Float32Array.from(values), [values.length], true);
  const { granularity } = kind;
  if (granularity === "row") {
    const rows = x.shape[0];
    const columns = x.size / rows;
    const ranges = Array.from({ length: rows }, (_, r) =>
      widened(search(x.data.subarray(r * columns, (r + 1) * columns), bits)),
    );
    const [lower, upper] = [0, 1].map((end) => trainable(ranges.map((range) => range[end])));
    return { lower, upper, granularity, bits };
  }
  if (kind.places) {
    const { lower, upper } = rangesByPlace(x, kind.places, bits, search);
    return { lower: trainable(lower), upper: trainable(upper), granularity, bits };
  }
  const columns = granularity === "column" ? x.shape[x.shape.length - 1] : 1;
  const sample = thin(x.data, columns);
  if (granularity === "column") {
    // Offsets start at the channel means; the search runs on the centred values.
    const means = new Float64Array(columns);
    for (let i = 0; i < sample.length; i++) means[i % columns] += sample[i];
    const centred = Float32Array.from(sample);
    for (let c = 0; c < columns; c++) means[c] /= sample.length / columns;
    for (let i = 0; i < centred.length; i++) centred[i] -= means[i % columns];
    const [low, high] = widened(search(centred, bits));
    const offsets = means.map((mean) => mean + low);
    return { lower: trainable(offsets), upper: trainable([high - low]), granularity, bits };
  }
  const [low, high] = widened(search(sample, bits));
  if (kind.role === "probability" || kind.role === "state") return jointBounds(low, high, bits);
  return { lower: trainable([low]), upper: trainable([high]), granularity, bits };
}

/**
 * Fills `sites.bounds` from one pass over `patches` (batch, h, w, 3); sites that have bounds
 * already keep them. Routes are sampled with `seed`.
 */
export function calibrate(
  memory: Memory,
  net: Network,
  sites: QuantisedSites,
  patches: Var,
  seed: number,
  searchFor: SearchFor = () => dobi,
): void {
  const graph = new Graph("running", memory);
  sites.samples = patches.shape[0];
  sites.observer = (site, x, kind) => {
    if (sites.bounds.has(site)) return;
    const bounds = boundsFor(x, kind, sites.policy.bits, searchFor(site, kind));
    sites.bounds.set(site, bounds);
  };
  try {
    net.forward(graph, patches, sites, new Router({ mode: "sampled", seed }));
  } finally {
    sites.observer = null;
    graph.dispose();
  }
}

/**
 * Bounds averaged over several batches, each calibrated by itself: the running mean of an observer
 * that sees them one after another. Batch i routes with noise of `seed` + i.
 */
export function calibrateMean(
  memory: Memory,
  net: Network,
  sites: QuantisedSites,
  batches: readonly Var[],
  seed: number,
  searchFor: SearchFor,
): void {
  const known = new Set(sites.bounds.keys());
  const totals = new Map<string, { lower: Float64Array; upper: Float64Array }>();
  batches.forEach((patches, i) => {
    for (const site of [...sites.bounds.keys()]) if (!known.has(site)) sites.bounds.delete(site);
    calibrate(memory, net, sites, patches, seed + i, searchFor);
    for (const [site, { lower, upper }] of sites.bounds) {
      if (known.has(site)) continue;
      const total = totals.get(site) ?? {
        lower: new Float64Array(lower.size),
        upper: new Float64Array(upper.size),
      };
      lower.data.forEach((value, k) => {
        total.lower[k] += value / batches.length;
      });
      upper.data.forEach((value, k) => {
        total.upper[k] += value / batches.length;
      });
      totals.set(site, total);
    }
  });
  for (const [site, total] of totals) {
    const { lower, upper } = sites.bounds.get(site)!;
    lower.data.set(total.lower);
    upper.data.set(total.upper);
  }
}
