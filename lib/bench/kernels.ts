/**
 * Suite `kernels`: the hot ops on one thread against the scalar reference, against each other (scan
 * forward over backward, fewer bits against four), and against ONNX Runtime inside graphs.
 */
import { native } from "../binding.ts";
import { emptyFloats, randomFloats } from "./data.ts";
import { fusedCases } from "./fused_cases.ts";
import {
  ATTENTIONS,
  type AttentionShape,
  attentionCalls,
  referenceCases,
  scanCalls,
} from "./kernel_cases.ts";
import { OnnxGraph } from "./onnx.ts";
import type { Ort } from "./ort.ts";
import { type PairShape, pairModel, pairPlan } from "./pair_graphs.ts";
import { type Goal, type RowText, skippedRow, timeRow } from "./rows.ts";
import { onBackend, type Suite, timing } from "./suite.ts";
import { interleave, perStep, type Side, type Timing } from "./timing.ts";

/** Pairs of a chain: eight minus two leave six, and the cost of a call falls out. */
const LONG_CHAIN = 8;
const SHORT_CHAIN = 2;
/** Linear pairs of the two networks; `rows` as in kernel_cases.ts. */
const PAIRS: readonly PairShape[] = [
  { rows: 61_440, narrow: 48, wide: 144 },
  { rows: 61_440, narrow: 48, wide: 48 },
  { rows: 58_880, narrow: 60, wide: 120 },
];
const PAIR_GOAL: Goal = { floor: 1.3, stretch: 2 };
const ATTENTION_GOAL: Goal = { floor: 2.5, stretch: 4 };
const SCAN_RATIO_GOAL: Goal = { floor: 0.28, stretch: 0.4 };
/** Never slower than four bits, whose kernel runs where none for fewer bits is faster. */
const BIT_GOALS: readonly { readonly bits: number; readonly goal: Goal }[] = [
  { bits: 2, goal: { floor: 1, stretch: 1.5, neverSlower: true } },
  { bits: 1, goal: { floor: 1.5, stretch: 3 } },
];

/** Runs the suite. */
export async function benchKernels(suite: Suite): Promise<void> {
  await againstReference(suite);
  await fused(suite);
  await scanRatio(suite);
  for (const shape of PAIRS) await linearPairs(suite, shape);
  for (const shape of ATTENTIONS) {
    for (const threads of new Set([1, suite.threads])) await attention(suite, shape, threads);
  }
}

async function againstReference(suite: Suite): Promise<void> {
  const fast = native().backends()[0];
  for (const { name, call, goal, note } of referenceCases()) {
    const sides: Side[] = [
      { prepare: onBackend(1, fast), run: call },
      { prepare: onBackend(1, "reference"), run: call },
    ];
    const [ours, peer] = await interleave(sides, timing(suite));
    const text = { name: `${name}, 1 thread`, against: "scalar reference at -O3" };
    suite.row(timeRow(note ? { ...text, note } : text, ours, peer, goal));
  }
}

async function fused(suite: Suite): Promise<void> {
  const prepare = onBackend(1, native().backends()[0]);
  for (const { name, whole, parts } of fusedCases()) {
    const sides: Side[] = [whole, parts].map((run) => ({ prepare, run }));
    const [ours, peer] = await interleave(sides, timing(suite));
    suite.row(timeRow({ name: `${name}, 1 thread`, against: "its parts in turn" }, ours, peer));
  }
}

/** The row's "ours" is the backward pass, its "peer" the forward pass. */
async function scanRatio(suite: Suite): Promise<void> {
  const { forward, backward } = scanCalls();
  const prepare = onBackend(1, native().backends()[0]);
  const [ours, peer] = await interleave(
    [
      { prepare, run: backward },
      { prepare, run: forward },
    ],
    timing(suite),
  );
  const text = {
    name: "selective scan backward, 1 thread",
    against: "its own forward",
    note: "ratio = forward's time over backward's",
  };
  suite.row(timeRow(text, ours, peer, SCAN_RATIO_GOAL));
}

const shapeName = ({ narrow, wide }: PairShape): string => `${narrow}-${wide}-${narrow}`;

/** Long and short chain of one contender, as two sides. */
async function chainSides(
  prepare: () => void,
  make: (pairs: number) => Promise<() => unknown>,
): Promise<Side[]> {
  return [
    { prepare, run: await make(LONG_CHAIN) },
    { prepare, run: await make(SHORT_CHAIN) },
  ];
}

async function linearPairs(suite: Suite, shape: PairShape): Promise<void> {
  const prepare = onBackend(1, native().backends()[0]);
  const { ort } = suite;
  const sides: Side[] = [];
  const bits = [4, ...BIT_GOALS.map((entry) => entry.bits)];
  for (const width of bits) {
    const make = async (pairs: number) => pairPlan(shape, pairs, width).run;
    sides.push(...(await chainSides(prepare, make)));
  }
  const peers = typeof ort === "string" ? [] : [true, false];
  for (const int8 of peers) {
    const make = (pairs: number) => ortChain(ort as Ort, shape, pairs, int8);
    sides.push(...(await chainSides(prepare, make)));
  }
  const timings = await interleave(sides, timing(suite));
  const steps: Timing[] = [];
  for (let i = 0; i < timings.length; i += 2) {
    steps.push(perStep(timings[i], timings[i + 1], LONG_CHAIN - SHORT_CHAIN));
  }
  const [four, two, one, int8, fp32] = steps;
  const name = `linear pair ${shape.rows} x ${shapeName(shape)}`;
  const inGraph = (against: string): RowText => ({ name: `${name} W4A4, 1 thread`, against });
  if (typeof ort === "string") {
    suite.row(skippedRow(inGraph("onnxruntime INT8 in graph"), ort, PAIR_GOAL, four));
    suite.row(skippedRow(inGraph("onnxruntime FP32 in graph"), ort, undefined, four));
  } else {
    suite.row(timeRow(inGraph("onnxruntime INT8 in graph"), four, int8, PAIR_GOAL));
    suite.row(timeRow(inGraph("onnxruntime FP32 in graph"), four, fp32));
  }
  [two, one].forEach((ours, i) => {
    const { bits: width, goal } = BIT_GOALS[i];
    const text = { name: `${name} W${width}A${width}, 1 thread`, against: "own W4A4" };
    suite.row(timeRow(text, ours, four, goal));
  });
}

async function ortChain(
  ort: Ort,
  shape: PairShape,
  pairs: number,
  int8: boolean,
): Promise<() => unknown> {
  const session = await ort.session(pairModel(shape, pairs, int8), 1);
  const sides = [shape.rows, shape.narrow];
  const x = ort.tensor(sides, randomFloats(shape.rows * shape.narrow, 99));
  const y = ort.tensor(sides, emptyFloats(shape.rows * shape.narrow));
  return () => session.run({ x }, { y });
}

/** MatMul + Add + Softmax + MatMul on windows that are already split into heads. */
export function attentionModel({
  height,
  width,
  heads,
  headDim,
  window,
}: AttentionShape): Uint8Array {
  const tokens = window * window;
  const windows = (height * width) / tokens;
  const g = new OnnxGraph();
  const q = g.input("q", [windows, heads, tokens, headDim]);
  const k = g.input("k", [windows, heads, headDim, tokens]);
  const v = g.input("v", [windows, heads, tokens, headDim]);
  const bias = g.constant(randomFloats(heads * tokens ** 2, 8, 0.3), [1, heads, tokens, tokens]);
  const logits = g.node("Add", [g.node("MatMul", [q, k]), bias]);
  const mixed = g.node("MatMul", [g.node("Softmax", [logits], { axis: -1 }), v]);
  g.output("y", mixed, [windows, heads, tokens, headDim]);
  return g.bytes();
}

async function attention(suite: Suite, shape: AttentionShape, threads: number): Promise<void> {
  const { ort } = suite;
  const { coded, float } = attentionCalls(shape, 4);
  const prepare = onBackend(threads, native().backends()[0]);
  const against = "onnxruntime MatMul+Add+Softmax+MatMul";
  const named = (what: string): RowText => ({
    name: `attention ${shape.name} ${what}, ${threads} thread${threads > 1 ? "s" : ""}`,
    against,
  });
  const sides: Side[] = [coded, float].map((run) => ({ prepare, run }));
  if (typeof ort !== "string") {
    sides.push({ prepare, run: await ortAttention(ort, shape, threads) });
  }
  const [four, full, peer] = await interleave(sides, timing(suite));
  if (typeof ort === "string") {
    suite.row(skippedRow(named("W4A4"), ort, ATTENTION_GOAL, four));
    suite.row(skippedRow(named("float"), ort, undefined, full));
    return;
  }
  suite.row(timeRow(named("W4A4"), four, peer, ATTENTION_GOAL));
  suite.row(timeRow(named("float"), full, peer));
}

async function ortAttention(
  ort: Ort,
  shape: AttentionShape,
  threads: number,
): Promise<() => unknown> {
  const session = await ort.session(attentionModel(shape), threads);
  const { height, width, heads, headDim, window } = shape;
  const tokens = window * window;
  const sides = [(height * width) / tokens, heads, tokens, headDim];
  const turned = [sides[0], heads, headDim, tokens];
  const size = height * width * heads * headDim;
  const operand = (seed: number) => randomFloats(size, seed, headDim ** -0.25);
  const q = ort.tensor(sides, operand(1));
  const k = ort.tensor(turned, operand(2));
  const v = ort.tensor(sides, operand(3));
  const y = ort.tensor(sides, emptyFloats(size));
  return () => session.run({ q, k, v }, { y });
}
