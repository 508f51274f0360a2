/**
 * Initial bounds of every site: one full-precision pass over a batch of patches, DOBI on what each
 * site sees (uncalibrated quantisers pass their input through, as the authors' code does).
 */
import { Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { readable } from "../device.ts";
import type { Network } from "../models/network.ts";
import { Router } from "../nn/routing.ts";
import type { Memory } from "../tensor.ts";
import type { Bounds } from "./codes.ts";
import { jointBounds, type QuantisedSites, type SiteKind } from "./sites.ts";

/** Activations are thinned to about this many values before the search; extremes stay. */
const SEARCH_VALUES = 400_000;

/** The native search over host arrays: x, lower, upper, then the sizes of the op. */
type Search = (x: F32, lower: F32, upper: F32, ...sizes: number[]) => void;

/** The search where `memory` lies. */
function dobiOn(memory: Memory, x: F32, lower: F32, upper: F32, sizes: number[]): void {
  const graph = new Graph("running", memory);
  const placed = [x, lower, upper].map((array) => graph.input(array));
  graph.run("dobi", ...placed, ...sizes);
  for (const [i, ends] of [lower, upper].entries()) {
    if (memory.onDevice) ends.set(readable(placed[1 + i]));
  }
  graph.dispose();
}

/** DOBI (spr2q-method 4.5) of a whole tensor: [lower, upper]. */
function dobi(x: F32, bits: number, search: Search): [number, number] {
  const [lower, upper] = [new Float32Array(1), new Float32Array(1)];
  search(x, lower, upper, 1, x.length, 0, bits, 0);
  return [lower[0], upper[0]];
}

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

/** Bounds of one site from what it saw. */
function boundsFor(x: Var, kind: SiteKind, bits: number, search: Search): Bounds {
  const trainable = (values: ArrayLike<number>): Var =>
    new Var(Float32Array.from(values), [values.length], true);
  const { granularity } = kind;
  if (granularity === "row") {
    const rows = x.shape[0];
    const [lower, upper] = [new Float32Array(rows), new Float32Array(rows)];
    search(x.data, lower, upper, rows, x.size / rows, 1, bits, 0);
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
    const [low, high] = dobi(centred, bits, search);
    const offsets = means.map((mean) => mean + low);
    return { lower: trainable(offsets), upper: trainable([high - low]), granularity, bits };
  }
  const [low, high] = dobi(sample, bits, search);
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
): void {
  const graph = new Graph("running", memory);
  const search = (x: F32, lower: F32, upper: F32, ...sizes: number[]): void =>
    dobiOn(memory, x, lower, upper, sizes);
  sites.observer = (site, { data, shape }, kind) => {
    if (sites.bounds.has(site)) return;
    const seen = new Var(readable(data), shape);
    sites.bounds.set(site, boundsFor(seen, kind, sites.policy.bits, search));
  };
  const router = new Router({ mode: "sampled", seed });
  try {
    net.forward(graph, new Var(graph.input(patches.data), patches.shape), sites, router);
  } finally {
    sites.observer = null;
    router.release();
    graph.dispose();
  }
}
