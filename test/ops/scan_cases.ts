/**
 * Shapes, operands and oracles of the selective scan's tests: the op itself, its gradient, and the
 * scan in double written a second time.
 */
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { fastBackends, random, zeros } from "./harness.ts";

export interface Shape {
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly states: number;
}

export interface Operands {
  readonly u: F32;
  readonly delta: F32;
  readonly A: F32;
  readonly B: F32;
  readonly C: F32;
  readonly D: F32;
  readonly deltaBias: F32;
}

export const operandNames = ["u", "delta", "A", "B", "C", "D", "deltaBias"] as const;
export type OperandName = (typeof operandNames)[number];

/** Vector widths 4, 8 and 16 and their remainders; chunk lengths of the gradient and beside. */
export const shapes: readonly Shape[] = [
  { batch: 1, length: 1, channels: 1, states: 1 },
  { batch: 2, length: 17, channels: 5, states: 3 },
  { batch: 1, length: 33, channels: 19, states: 8 },
  { batch: 3, length: 64, channels: 24, states: 8 },
  { batch: 1, length: 131, channels: 48, states: 8 },
  { batch: 1, length: 40, channels: 67, states: 16 },
  { batch: 1, length: 7, channels: 150, states: 2 },
];

export const title = (s: Shape): string =>
  `${s.batch}x${s.length}x${s.channels}, ${s.states} states`;

/** Step sizes and rates as in trained networks: Delta around 0.05 ... 0.7, A in -8 ... -0.5. */
export function operands(s: Shape, seed: number): Operands {
  const rows = s.batch * s.length;
  return {
    u: random(rows * s.channels, seed),
    delta: random(rows * s.channels, seed + 1, -2, 2),
    A: random(s.channels * s.states, seed + 2, -8, -0.5),
    B: random(rows * s.states, seed + 3),
    C: random(rows * s.states, seed + 4),
    D: random(s.channels, seed + 5),
    deltaBias: random(s.channels, seed + 6, -3, -1),
  };
}

export function forward(s: Shape, o: Operands, states: F32 | null = null): F32 {
  return quantised(s, o, null, 0, states);
}

export function quantised(
  s: Shape,
  o: Operands,
  bounds: F32 | null,
  bits: number,
  states: F32 | null,
) {
  const y = zeros(o.u.length);
  native().selectiveScan(
    ...operandsInOrder(o),
    bounds,
    y,
    states,
    s.batch,
    s.length,
    s.channels,
    s.states,
    bits,
  );
  return y;
}

function operandsInOrder(o: Operands): [F32, F32, F32, F32, F32, F32, F32] {
  return [o.u, o.delta, o.A, o.B, o.C, o.D, o.deltaBias];
}

export interface Gradients extends Operands {
  readonly bounds: F32;
}

export function gradients(
  s: Shape,
  o: Operands,
  gy: F32,
  bounds: F32 | null = null,
  bits = 0,
): Gradients {
  const g = Object.fromEntries(operandNames.map((n) => [n, zeros(o[n].length).fill(Number.NaN)]));
  const all = { ...(g as Record<OperandName, F32>), bounds: zeros(2) };
  native().selectiveScanGrad(
    ...operandsInOrder(o),
    bounds,
    gy,
    ...operandsInOrder(all),
    bounds ? all.bounds : null,
    s.batch,
    s.length,
    s.channels,
    s.states,
    bits,
  );
  return all;
}

/**
 * The scan in double, with the quantised copy as its smooth surrogate: clip(h) plus the residual
 * (q - u) * step, frozen. `visit` gives the copy of h that meets C.
 */
export function scanInDouble(
  s: Shape,
  o: Record<OperandName, ArrayLike<number>>,
  copy: (h: number, index: number) => number,
): Float64Array {
  const y = new Float64Array(s.batch * s.length * s.channels);
  const h = new Float64Array(s.channels * s.states);
  for (let row = 0; row < s.batch * s.length; row++) {
    if (row % s.length === 0) h.fill(0);
    for (let c = 0; c < s.channels; c++) {
      const i = row * s.channels + c;
      const delta = Math.log1p(Math.exp(o.delta[i] + o.deltaBias[c]));
      y[i] = o.D[c] * o.u[i];
      for (let k = 0; k < s.states; k++) {
        const at = c * s.states + k;
        h[at] = Math.exp(delta * o.A[at]) * h[at] + delta * o.B[row * s.states + k] * o.u[i];
        y[i] += o.C[row * s.states + k] * copy(h[at], i * s.states + k);
      }
    }
  }
  return y;
}

/** Eq. 1 in float32, as ops.hpp orders it. */
export function quantise(h: number, lower: number, upper: number, bits: number): number {
  const { fround } = Math;
  const levels = 2 ** bits - 1;
  const inverse = fround(levels / fround(upper - lower));
  const u = Math.min(Math.max(fround(fround(h - lower) * inverse), 0), levels);
  const down = Math.floor(u);
  const odd = down % 2 === 1 ? down + 1 : down;
  const code = u - down === 0.5 ? odd : Math.round(u);
  return fround(fround(fround(upper - lower) / levels) * code + lower);
}

export const titled = shapes.map((s) => [title(s), s] as const);
export const everyBackend: readonly string[] = [...fastBackends, "reference"];
