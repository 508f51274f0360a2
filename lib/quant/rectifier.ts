/**
 * Rectifier groups (PQFR, Eq. 2, 9): N low-rank increments B_i A_i on a frozen weight, mixed by
 * gates on the simplex. With static gates the group costs nothing at inference: it is merged.
 */
import { type Graph, Var } from "../autograd.ts";
import { floats } from "../tensor.ts";

/** A group of `experts` rectifiers of rank `rank` for a weight (out, in). */
export interface RectifierGroup {
  /** (experts, rank, in) */
  readonly a: Var;
  /** (experts, out, rank); zero at the start, so that the group starts as nothing. */
  readonly b: Var;
  /** (experts): gates = softmax(logits). */
  readonly logits: Var;
}

/** A trained increment of a whole weight: the control "direct tuning". */
export interface Increment {
  /** (out, in), zero at the start. */
  readonly value: Var;
  /** Root mean square of the weight that it changes, the unit of its rate. */
  readonly rms: number;
}

/** "reference": U(+-sqrt(6/rank)) as the authors' framework draws; "lora": U(+-1/sqrt(in)). */
export type RectifierInit = "reference" | "lora";

/** A fresh group; `draw` gives uniform numbers in [0, 1). */
export function createRectifiers(
  out: number,
  cols: number,
  experts: number,
  rank: number,
  init: RectifierInit,
  draw: () => number,
): RectifierGroup {
  const bound = init === "reference" ? Math.sqrt(6 / rank) : 1 / Math.sqrt(cols);
  const a = floats(experts * rank * cols);
  for (let i = 0; i < a.length; i++) a[i] = (2 * draw() - 1) * bound;
  return {
    a: new Var(a, [experts, rank, cols], true),
    b: new Var(floats(experts * out * rank), [experts, out, rank], true),
    logits: new Var(floats(experts), [experts], true),
  };
}

/** Softmax of the group's logits: one row of the routing table. */
export function gatesOf(group: RectifierGroup): number[] {
  const logits = [...group.logits.data];
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** Gates as a value of the graph: softmax over the few logits of one group. */
function gates(g: Graph, group: RectifierGroup): Var {
  const values = Float32Array.from(gatesOf(group));
  const y = new Var(values, [values.length]);
  return g.record(y, [group.logits], (gy) => {
    const mean = values.reduce((total, gate, i) => total + gate * gy[i], 0);
    const glogits = g.floats(values.length);
    values.forEach((gate, k) => {
      glogits[k] = gate * (gy[k] - mean);
    });
    return [glogits];
  });
}

/** W + sum_i g_i B_i A_i (Eq. 9); `mixed` overrides the static gates (dynamic gate). */
export function mergeRectifiers(g: Graph, weight: Var, group: RectifierGroup, mixed?: Var): Var {
  const { a, b } = group;
  const [experts, rank, cols] = a.shape;
  const out = b.shape[1];
  const gate = mixed ?? gates(g, group);
  const merged = new Var(g.floats(weight.size), weight.shape);
  const sides = [experts, rank, cols, out];
  g.run("mergeRectifiers", weight.data, a.data, b.data, gate.data, merged.data, ...sides);
  return g.record(merged, [a, b, gate], (gm) => {
    const gradients = [g.floats(a.size), g.floats(b.size), g.floats(experts)];
    g.run("mergeRectifiersGrad", gm, a.data, b.data, gate.data, ...gradients, ...sides);
    return gradients;
  });
}
