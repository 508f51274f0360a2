/**
 * CondiQuant's pre-conditioning (arXiv 2502.15478, reconstructed from its abstract): noise on the
 * input of a linear layer grows by up to kappa(W) = s_max / s_min, so W is moved to where its
 * singular values are closer together while its outputs on calibration inputs stay:
 *   min over W' of  tr((W' - W) C (W' - W)^T) + lambda/2 sum_i (s_i(W') - mean s)^2,  C = E[x x^T],
 * by proximal gradient: W' -= eta (W' - W) C, then s_i <- mean + (s_i - mean)/(1 + eta lambda).
 * lambda is not published; it grows here from step to step until the outputs would move by more
 * than a stated share. Costs nothing at inference.
 */
import { Var } from "../autograd.ts";
import { symmetricEigen } from "../linalg/eigen.ts";
import { type Matrix, matrix, product, scaledColumns, transposed } from "../linalg/matrix.ts";
import { svd } from "../linalg/svd.ts";
import { Network } from "../models/network.ts";
import { floatsFrom, type Memory } from "../tensor.ts";
import { inputMoments } from "./covariance.ts";
import type { Policy } from "./policy.ts";

/** Share of the energy of a layer's outputs that may change. */
export const OUTPUT_BUDGET = 3e-3;
/** eta lambda of the first step and its growth; the budget ends the walk long before the last step. */
const FIRST_SHRINK = 1e-3;
const GROWTH = 1.5;
const MOST_STEPS = 40;

/** A weight before and after. */
export interface Conditioned {
  readonly weight: Matrix;
  /** s_max / s_min over the singular values above rounding. */
  readonly before: number;
  readonly after: number;
  /** Relative change of the outputs' energy. */
  readonly error: number;
}

/** s_max / s_min. */
function condition(values: Float64Array): number {
  return values[0] / Math.max(values[values.length - 1], 1e-12 * values[0]);
}

/** The proximal step of the spread: every value nearer to their mean by 1/(1 + shrink). */
export function shrunk(values: Float64Array, shrink: number): Float64Array {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.map((value) => mean + (value - mean) / (1 + shrink));
}

const minus = (a: Matrix, b: Matrix): Matrix => ({
  ...a,
  data: a.data.map((value, i) => value - b.data[i]),
});

/** tr(D C D^T) of a difference D of weights. */
function energy(d: Matrix, c: Matrix): number {
  return product(d, c).data.reduce((sum, value, i) => sum + value * d.data[i], 0);
}

/** Conditions one weight (out, in) for inputs of second moment `second` (in, in). */
export function conditionWeight(w: Matrix, second: Matrix, budget = OUTPUT_BUDGET): Conditioned {
  const largest = symmetricEigen(second).values[0];
  const c = { ...second, data: second.data.map((value) => value / largest) };
  const whole = energy(w, c);
  const before = condition(svd(w).values);
  let kept: Conditioned = { weight: w, before, after: before, error: 0 };
  let current = w;
  for (let step = 0, shrink = FIRST_SHRINK; step < MOST_STEPS; step++, shrink *= GROWTH) {
    const slope = product(minus(current, w), c);
    const { u, values, v } = svd(minus(current, slope));
    const next = product(scaledColumns(u, shrunk(values, shrink)), transposed(v));
    const error = energy(minus(next, w), c) / whole;
    if (!(error <= budget)) break;
    current = next;
    kept = { weight: next, before, after: condition(svd(next).values), error };
  }
  return kept;
}

/** A copy of `net` whose linear modules under `policy` are conditioned, and what became of each. */
export function conditionedCopy(
  memory: Memory,
  net: Network,
  policy: Policy,
  patches: Var,
  seed: number,
): { readonly net: Network; readonly layers: ReadonlyMap<string, Conditioned> } {
  const moments = inputMoments(memory, net, policy, patches, seed);
  const copy = copyOf(net);
  const tensors = new Map(
    net.architecture.modules.map(({ name, tensor }): [string, string] => [name, tensor]),
  );
  const layers = new Map<string, Conditioned>();
  for (const [key, { second }] of moments) {
    const prefix = net.layerPrefixes.find((one) => key.startsWith(one))!;
    const weight = copy.get(prefix + tensors.get(key.slice(prefix.length)));
    const result = conditionWeight(
      matrix(weight.size / second.cols, second.cols, weight.data),
      second,
    );
    weight.data.set(result.weight.data);
    layers.set(key, result);
  }
  return { net: copy, layers };
}

/** The same network over memory of its own. */
export function copyOf(net: Network): Network {
  const weights = [...net.weights].map(([name, { data, shape }]): [string, Var] => [
    name,
    new Var(floatsFrom(data), shape),
  ]);
  return new Network(net.architecture, net.config, new Map(weights));
}
