/** Window attention on graphs, float and on codes (native ops window_attention*). */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import type { Grid } from "../ops.ts";
import type { Codes } from "../quant/codes.ts";

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

function sidesOf(channels: number, shape: WindowShape, codes: ProbabilityCodes): number[] {
  const { batch, height, width, heads, window, shift } = shape;
  const bits = codes.kind === "float" ? 8 : codes.bits;
  return [batch, height, width, heads, channels / heads, window, shift, KIND[codes.kind], bits];
}

function boundsOf(codes: ProbabilityCodes): Var | null {
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
  const sides = sidesOf(q.shape[1], shape, codes);
  const bounds = boundsOf(codes);
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

/** The same on codes of q, k and v: the arithmetic of the packed plan. */
export function codedWindowAttention(
  g: Graph,
  [q, k, v]: readonly [Codes, Codes, Codes],
  grid: F32,
  table: Var,
  shape: WindowShape,
  codes: ProbabilityCodes,
): Var {
  const sides = sidesOf(q.shape[1], shape, codes);
  const bounds = boundsOf(codes);
  const y = new Var(g.floats(q.size), q.shape);
  g.run(
    "codedWindowAttention",
    q.codes,
    k.codes,
    v.codes,
    grid,
    table.data,
    bounds?.data ?? null,
    y.data,
    ...sides,
    q.bits,
  );
  return g.record(y, [q, k, v, table, bounds], (gy) => {
    const values = [q, k, v].map((operand) => operand.dequantise(g)) as [F32, F32, F32];
    return attentionGradient(g, values, table, bounds, gy, sides);
  });
}

function attentionGradient(
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
