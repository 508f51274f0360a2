/** The selective state-space scan on graphs (native ops selective_scan*). */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";

/** Operands of one scan: u, delta (batch*length, channels); A (channels, states); B, C
 * (batch*length, states); D, deltaBias (channels). delta is before bias and softplus. */
export interface ScanOperands {
  readonly u: Var;
  readonly delta: Var;
  readonly A: Var;
  readonly B: Var;
  readonly C: Var;
  readonly D: Var;
  readonly deltaBias: Var;
}

/** Quantiser of the copy of the state that meets C: bounds (lower, upper). */
export interface StateCodes {
  readonly bounds: Var;
  readonly bits: number;
}

/** y (batch*length, channels); `states` optionally receives every h for calibration. */
export function selectiveScan(
  g: Graph,
  operands: ScanOperands,
  batch: number,
  stateCodes: StateCodes | null = null,
  states: F32 | null = null,
): Var {
  const { u, delta, A, B, C, D, deltaBias } = operands;
  const [channels, stateCount] = A.shape;
  const sides = [batch, u.size / channels / batch, channels, stateCount, stateCodes?.bits ?? 8];
  const inputs = [u, delta, A, B, C, D, deltaBias];
  const bounds = stateCodes?.bounds ?? null;
  const values = [...inputs.map((input) => input.data), bounds?.data ?? null];
  const y = new Var(g.floats(u.size), u.shape);
  g.run("selectiveScan", ...values, y.data, states, ...sides);
  return g.record(y, [...inputs, bounds], (gy) => {
    const gradients = inputs.map((input) => g.floats(input.size));
    const gbounds = bounds ? g.floats(2) : null;
    g.run("selectiveScanGrad", ...values, gy, ...gradients, gbounds, ...sides);
    return [...gradients, gbounds];
  });
}
