/**
 * Rectifier groups (PQFR, Eq. 2, 9): N low-rank increments B_i A_i on a frozen weight, mixed by
 * gates on the simplex. With static gates the group costs nothing at inference: it is merged.
 */
import { type Graph, Var } from "../autograd.ts";
import { readable } from "../device.ts";
import { listOf, softmaxes } from "../ops.ts";
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
  const logits = [...readable(group.logits.data)];
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** A weight (out, in) and the group that is merged into it. */
export interface Rectified {
  readonly weight: Var;
  readonly group: RectifierGroup;
}

/** W + sum_i g_i B_i A_i (Eq. 9); `mixed` overrides the static gates (dynamic gate). */
export function mergeRectifiers(g: Graph, weight: Var, group: RectifierGroup, mixed?: Var): Var {
  return mergeAll(g, [{ weight, group }], mixed && [mixed])[0];
}

/** The same of many layers, whose groups have as many experts of the same rank, in one call. */
export function mergeAll(
  g: Graph,
  layers: readonly Rectified[],
  gates: readonly Var[] = softmaxes(
    g,
    layers.map(({ group }) => group.logits),
  ),
): Var[] {
  if (layers.length === 0) return [];
  const [experts, rank] = layers[0].group.a.shape;
  const weights = layers.map(({ weight }) => weight);
  const inputs = [layers.map(({ group }) => group.a), layers.map(({ group }) => group.b), gates];
  const merged = weights.map(({ size, shape }) => new Var(g.floats(size), shape));
  const operands = [weights, ...inputs, merged].map((list) => listOf(list));
  g.run("mergeRectifiers", ...operands, experts, rank);
  g.recordEach(merged, inputs, (used, gmerged) => {
    const given = inputs.map((list) => listOf(list, used));
    const gradients = given.map((list) => list.map(({ length }) => g.floats(length)));
    g.run("mergeRectifiersGrad", gmerged, ...given, ...gradients, experts, rank);
    return gradients;
  });
  return merged;
}
