/** Window attention on codes of q, k and v. */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import {
  attentionGradient,
  attentionSides,
  type ProbabilityCodes,
  probabilityBounds,
  type WindowShape,
  windowAttention,
} from "../nn/attention.ts";
import type { Codes } from "./codes.ts";

/** The same on codes of q, k and v: the arithmetic of the packed plan. */
export function codedWindowAttention(
  g: Graph,
  [q, k, v]: readonly [Codes, Codes, Codes],
  grid: F32,
  table: Var,
  shape: WindowShape,
  codes: ProbabilityCodes,
): Var {
  const sides = attentionSides(q.shape[1], shape, codes);
  const bounds = probabilityBounds(codes);
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
    ...[null, null, null],
    ...sides,
    ...[q.bits, 1, 0],
  );
  return g.record(y, [q, k, v, table, bounds], (gy) => {
    const values = [q, k, v].map((operand) => operand.dequantise(g)) as [F32, F32, F32];
    return attentionGradient(g, values, table, bounds, gy, sides);
  });
}

/** Softmax probabilities of the first sample: its windows hold millions of them. */
export function sampleProbabilities(
  g: Graph,
  [q, k, v]: readonly [Var, Var, Var],
  table: Var,
  shape: WindowShape,
): Var {
  const values = q.size / shape.batch;
  const first = [q, k, v].map(
    (x) => new Var(x.data.subarray(0, values), [values / q.shape[1], q.shape[1]]),
  );
  const one = { ...shape, batch: 1 };
  const held = g.floats(shape.height * shape.width * shape.heads * shape.window ** 2);
  windowAttention(g, first as [Var, Var, Var], table, one, { kind: "float" }, held);
  return new Var(held, [held.length]);
}
