/**
 * DPLR-Fisher: the curvature of the task loss at a block's output, as a diagonal and a part of low
 * rank. Snapshots taken during the fit pair mean |gradient| of the task loss (G, k x C) with mean
 * |z_q - z_fp| (D, k x C); near the optimum g = F d, so F is known on the span of the snapshots:
 *   low rank: (d G^T)(D D^T)^-1 (d G^T)^T,   diagonal: mean(d^2 mean_k |G|),
 * each divided by its value at the last snapshot. d = |z_q - z_fp|, here by channel, averaged over
 * the tokens of an image in the first part and token by token in the second.
 */
import { Graph, releaseGradients, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { inverse } from "../linalg/cholesky.ts";
import { type Matrix, matrix, product, transposed } from "../linalg/matrix.ts";
import type { Network, Trace } from "../models/network.ts";
import { FloatSites } from "../models/sites.ts";
import { Router } from "../nn/routing.ts";
import type { Student } from "../quant/student.ts";
import type { Memory } from "../tensor.ts";

/** Added to D D^T's diagonal, as a share of its trace. */
const RIDGE = 1e-6;

/** What the student's output layer tells about one layer: means over tokens, by channel. */
export interface Sensitivity {
  /** mean |d loss / d z| */
  readonly gradient: Float64Array;
  /** mean |z_q - z_fp| */
  readonly distance: Float64Array;
}

/** Means over rows of |values|, by column. */
function meanMagnitude(values: ArrayLike<number>, columns: number): Float64Array {
  const rows = values.length / columns;
  const means = new Float64Array(columns);
  for (let i = 0; i < values.length; i++) means[i % columns] += Math.abs(values[i]) / rows;
  return means;
}

/** Gradient of the mean |student - teacher| of pixels at `layer`'s output, on LR `patches`. */
export function outputSensitivity(
  memory: Memory,
  teacher: Network,
  student: Student,
  patches: Var,
  layer: number,
  seed: number,
): Sensitivity {
  const quiet = new Graph("running", memory);
  const routes = new Router({ mode: "sampled", seed });
  const wanted: Trace = { layers: [], groups: [] };
  const target = teacher.forward(quiet, patches, new FloatSites(), routes, wanted);
  const graph = new Graph("recording", memory);
  const { channels } = teacher.config;
  let gradient: Float64Array = new Float64Array(channels);
  let distance: Float64Array = new Float64Array(channels);
  const watch = (g: Graph, index: number, output: Var): Var => {
    if (index !== layer) return output;
    const { data } = wanted.layers[layer];
    distance = meanMagnitude(
      output.data.map((value, i) => value - data[i]),
      channels,
    );
    return g.record(new Var(output.data, output.shape), [output], (gy) => {
      gradient = meanMagnitude(gy, channels);
      return [gy];
    });
  };
  student.sites.samples = patches.shape[0];
  const replay = new Router({ replay: routes.classes });
  const trace: Trace = { layers: [], groups: [], watch };
  const output = student.net.forward(graph, patches, student.sites, replay, trace);
  const loss = graph.floats(1);
  const pixels = graph.floats(output.size);
  graph.run("l1Loss", output.data, target.data, loss, pixels, output.size);
  graph.seed(output, pixels);
  graph.backward();
  graph.dispose();
  quiet.dispose();
  const leaves = [...student.sites.bounds.values()].flatMap(({ lower, upper }) => [lower, upper]);
  releaseGradients(memory, leaves);
  return { gradient, distance };
}

/** The curvature that the snapshots so far tell; all in double. */
export class Dplr {
  readonly #channels: number;
  readonly #gradients: Float64Array[] = [];
  readonly #distances: Float64Array[] = [];
  #inverse: Matrix = matrix(0, 0);
  #units = { low: 0, diagonal: 0 };

  constructor(channels: number) {
    this.#channels = channels;
  }

  /** Adds a snapshot; the next loss() sets the units of both parts. */
  add({ gradient, distance }: Sensitivity): void {
    this.#gradients.push(gradient);
    this.#distances.push(distance);
    this.#units = { low: 0, diagonal: 0 };
    this.#solve();
  }

  #solve(): void {
    const k = this.#distances.length;
    const d = matrix(
      k,
      this.#channels,
      this.#distances.flatMap((row) => [...row]),
    );
    const gram = product(d, transposed(d));
    let trace = 0;
    for (let i = 0; i < k; i++) trace += gram.data[i * k + i];
    for (let i = 0; i < k; i++) gram.data[i * k + i] += RIDGE * trace + 1e-30;
    this.#inverse = inverse(gram);
  }

  /** d F d^T of the low-rank part for d (C), and its gradient. */
  lowRank(d: ArrayLike<number>): { value: number; gradient: Float64Array } {
    const along = this.#gradients.map((row) => row.reduce((sum, g, c) => sum + g * d[c], 0));
    const k = along.length;
    const solved = along.map((_, i) =>
      along.reduce((sum, value, j) => sum + this.#inverse.data[i * k + j] * value, 0),
    );
    const value = along.reduce((sum, a, i) => sum + a * solved[i], 0);
    const gradient = new Float64Array(this.#channels);
    this.#gradients.forEach((row, i) => {
      row.forEach((g, c) => {
        gradient[c] += 2 * solved[i] * g;
      });
    });
    return { value, gradient };
  }

  /** Loss of z against y (images * tokens, C); writes the gradient. */
  loss(z: F32, y: F32, images: number, gradient: F32): number {
    const C = this.#channels;
    const tokens = z.length / C / images;
    const weights = new Float64Array(C);
    for (const row of this.#gradients)
      row.forEach((g, c) => {
        weights[c] += g / this.#gradients.length;
      });
    let [low, diagonal] = [0, 0];
    const slopes = Array.from({ length: images }, (_, b) => {
      const part = z.subarray(b * tokens * C, (b + 1) * tokens * C);
      const distance = meanMagnitude(
        part.map((v, i) => v - y[b * tokens * C + i]),
        C,
      );
      const { value, gradient: slope } = this.lowRank(distance);
      low += value / images;
      return slope;
    });
    for (let i = 0; i < z.length; i++) diagonal += (weights[i % C] * (z[i] - y[i]) ** 2) / z.length;
    if (this.#units.low === 0)
      this.#units = { low: Math.max(low, 1e-30), diagonal: Math.max(diagonal, 1e-30) };
    const units = this.#units;
    for (let i = 0; i < z.length; i++) {
      const c = i % C;
      const d = z[i] - y[i];
      const slope = slopes[Math.floor(i / (tokens * C))][c];
      gradient[i] =
        (Math.sign(d) * slope) / (tokens * images * units.low) +
        (2 * weights[c] * d) / (z.length * units.diagonal);
    }
    return low / units.low + diagonal / units.diagonal;
  }

  /** Snapshots and units, doubles as pairs of floats. */
  state(): Map<string, Float32Array<ArrayBuffer>> {
    const bits = (values: Float64Array): Float32Array<ArrayBuffer> =>
      new Float32Array(Float64Array.from(values).buffer);
    const flat = (rows: Float64Array[]): Float64Array =>
      Float64Array.from(rows.flatMap((row) => [...row]));
    return new Map([
      ["gradients", bits(flat(this.#gradients))],
      ["distances", bits(flat(this.#distances))],
      ["units", bits(Float64Array.of(this.#units.low, this.#units.diagonal))],
    ]);
  }

  restore(state: ReadonlyMap<string, Float32Array>): void {
    const doubles = (key: string): Float64Array =>
      new Float64Array(Float32Array.from(state.get(key) ?? []).buffer);
    const rows = (values: Float64Array): Float64Array[] =>
      Array.from({ length: values.length / this.#channels }, (_, i) =>
        values.slice(i * this.#channels, (i + 1) * this.#channels),
      );
    this.#gradients.splice(0, this.#gradients.length, ...rows(doubles("gradients")));
    this.#distances.splice(0, this.#distances.length, ...rows(doubles("distances")));
    const [low, diagonal] = doubles("units");
    this.#units = { low, diagonal };
    if (this.#distances.length > 0) this.#solve();
  }
}
