/** Window attention on graphs (native ops window_attention*). */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import type { Grid } from "../ops.ts";

/** Heads, window side and cyclic shift of one attention layer. */
export interface WindowShape extends Grid {
  readonly heads: number;
  readonly window: number;
  readonly shift: number;
}

/** How softmax probabilities are coded: not at all, by Eq. 1, or as half exponents. */
export type ProbabilityCodes =
  | { readonly kind: "float" }
  | { readonly kind: "uniform"; readonly bits: number; readonly bounds: Var }
  | { readonly kind: "half-exponent"; readonly bits: number };

const KIND = { float: 0, uniform: 1, "half-exponent": 2 } as const;

/** Sizes and modes in the order of the native op. */
export function attentionSides(
  channels: number,
  shape: WindowShape,
  codes: ProbabilityCodes,
): number[] {
  const { batch, height, width, heads, window, shift } = shape;
  const bits = codes.kind === "float" ? 8 : codes.bits;
  return [batch, height, width, heads, channels / heads, window, shift, KIND[codes.kind], bits];
}

/** Bounds of uniform probability codes, null for the other kinds. */
export function probabilityBounds(codes: ProbabilityCodes): Var | null {
  return codes.kind === "uniform" ? codes.bounds : null;
}

/** Attention of float q (already scaled), k, v, each (rows, channels). */
export function windowAttention(
  g: Graph,
  [q, k, v]: readonly [Var, Var, Var],
  table: Var,
  shape: WindowShape,
  codes: ProbabilityCodes = { kind: "float" },
  probabilities: F32 | null = null,
): Var {
  const sides = attentionSides(q.shape[1], shape, codes);
  const bounds = probabilityBounds(codes);
  const y = new Var(g.floats(q.size), q.shape);
  g.run(
    "windowAttention",
    q.data,
    k.data,
    v.data,
    table.data,
    bounds?.data ?? null,
    y.data,
    probabilities,
    ...sides,
  );
  return g.record(y, [q, k, v, table, bounds], (gy) =>
    attentionGradient(g, [q.data, k.data, v.data], table, bounds, gy, sides),
  );
}

/** Gradients of q, k, v, the table and the probability bounds. */
export function attentionGradient(
  g: Graph,
  [q, k, v]: readonly [F32, F32, F32],
  table: Var,
  bounds: Var | null,
  gy: F32,
  sides: number[],
): (F32 | null)[] {
  const [gq, gk, gv] = [g.floats(q.length), g.floats(q.length), g.floats(q.length)];
  const gtable = g.floats(table.size);
  const gbounds = bounds ? g.floats(2) : null;
  g.run(
    "windowAttentionGrad",
    q,
    k,
    v,
    table.data,
    bounds?.data ?? null,
    gy,
    gq,
    gk,
    gv,
    gtable,
    gbounds,
    ...sides,
  );
  return [gq, gk, gv, gtable, gbounds];
}
