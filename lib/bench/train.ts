/**
 * Suite `train`: one step of rectifier-guided training (teacher forward, student forward and
 * backward, Adam) at batch 8 of 64x64 LR pixels, x2.
 */
import { Graph, type OpName, type Operand } from "../autograd.ts";
import { native } from "../binding.ts";
import { openModel } from "../infer/model.ts";
import { macAccount } from "../quant/accounts.ts";
import { policyFor } from "../quant/policy.ts";
import { RECIPES } from "../quant/recipes.ts";
import { createStudent } from "../quant/student.ts";
import { Memory } from "../tensor.ts";
import { Adam } from "../train/adam.ts";
import { distill } from "../train/distill.ts";
import { PatchSource } from "../train/patches.ts";
import { trainablesOf } from "../train/trainables.ts";
import { emptyFloats, randomFloats } from "./data.ts";
import { bundledImages, bundledModel, networkName, officialWeights } from "./models.ts";
import { factRow, type Goal, NO_GOAL, type RowText, skippedRow, timeRow } from "./rows.ts";
import { onBackend, type Suite, timing } from "./suite.ts";
import { interleave, type Side, type Timing } from "./timing.ts";
import { type TorchPeer, torchPeers } from "./torch.ts";

const BATCH = 8;
/** LR pixels a side. */
const PATCH = 64;
const SCALE = 2;
const BITS = 4;
const SHAPE = { experts: 4, rank: 8 } as const;
const STEP_GOAL: Goal = { floor: 20, stretch: 35 };
/** A rate too small to move anything: every step does the same work. */
const RATE = 1e-9;
/** Passes of the forward's MACs that a step needs: teacher, student, and backward twice. */
const PASSES = 4;
/** Sides of a product that stays in the second-level cache, for the measured peak. */
const PEAK_SHAPE = { rows: 2048, inputs: 64, outputs: 64 } as const;

/** Runs the suite. */
export async function benchTrain(suite: Suite): Promise<void> {
  const official = officialWeights(suite, SCALE);
  const path = suite.model ?? official ?? bundledModel();
  if (!suite.model && !official) {
    suite.say("no --model and no test data: the bundled tiny x2 model stands in, without goals");
  }
  const model = await openModel(path);
  const { scale } = model.net.config;
  const memory = new Memory();
  const source = await PatchSource.open(bundledImages(), scale, PATCH);
  const recipe = RECIPES.best;
  const calibration = source.draw(2, PATCH, 0, 1).low;
  const policy = policyFor("best", BITS);
  const student = createStudent(memory, model.net, policy, recipe, SHAPE, calibration, 0);
  const settings = { beta1: recipe.beta1, beta2: recipe.beta2, epsilon: 1e-8 };
  const adam = new Adam(trainablesOf(student.sites, recipe), settings);
  const graph = new Graph("running", memory);
  let iteration = 0;
  const step = (): void => {
    const { low } = source.draw(BATCH, PATCH, 0, ++iteration);
    distill(memory, model.net, student, low, recipe.featureWeight, iteration, true);
    adam.step(graph, RATE);
  };
  const bundled = suite.model || official ? "" : "bundled tiny ";
  const name = `${bundled}${networkName(model)} RGT step, batch ${BATCH} of ${PATCH}x${PATCH}`;
  const ours = await againstTorch(suite, step, name, !suite.model && official !== null);
  const tokens = BATCH * PATCH * PATCH;
  suite.row(factRow(`${name}: speed`, "tokens/s", tokens / ours.median));
  const input = { width: PATCH, height: PATCH, padded: true };
  const macs = PASSES * BATCH * macAccount(model.net, null, input).macs;
  const peak = await measuredPeak(suite);
  const note =
    `${(macs / 1e9).toFixed(0)} GMAC a step (${PASSES} forward passes' worth, recomputation not ` +
    `counted) of ${(peak / 1e9).toFixed(0)} GMAC/s that the float linear op reaches in cache`;
  suite.row(factRow(`${name}: share of peak`, "%", (100 * macs) / ours.median / peak, note));
  suite.row(factRow(`${name}: peak of tensors`, "MiB", memory.peakBytes / 2 ** 20));
  const resident = process.resourceUsage().maxRSS / 1024;
  const whole = "of this process, earlier suites included";
  suite.row(factRow(`${name}: greatest resident size`, "MiB", resident, whole));
  if (!suite.profile) return;
  onBackend(suite.threads, native().backends()[0])();
  profile(suite, step);
}

/** The step beside the same one in PyTorch, in turn. */
async function againstTorch(
  suite: Suite,
  step: () => void,
  name: string,
  hasGoal: boolean,
): Promise<Timing> {
  const prepare = onBackend(suite.threads, native().backends()[0]);
  const ours: Side = { prepare, run: step };
  const against = "the same step in PyTorch, compiled scan";
  if (!hasGoal) {
    const reason = "the peer is written for the official x2 weights";
    return againstPeer(suite, ours, { name, against }, NO_GOAL, reason);
  }
  const sizes = ["--threads", suite.threads, "--batch", BATCH, "--patch", PATCH].map(String);
  const peers = torchPeers("mambairv2_step_torch.py", sizes, suite.data, suite.python);
  let measured: Timing | null = null;
  // The goal is against PyTorch as Debian installs it, the first of the peers.
  for await (const torch of peers) {
    const text = {
      name,
      against: typeof torch === "string" ? against : `${against}, ${torch.blas}`,
    };
    const timed = await againstPeer(suite, ours, text, measured ? NO_GOAL : STEP_GOAL, torch);
    measured ??= timed;
  }
  return measured!;
}

async function againstPeer(
  suite: Suite,
  ours: Side,
  text: RowText,
  goal: Goal,
  torch: TorchPeer | string,
): Promise<Timing> {
  if (typeof torch === "string") {
    const [timed] = await interleave([ours], timing(suite));
    suite.row(skippedRow(text, torch, goal, timed));
    return timed;
  }
  try {
    suite.version("torch", torch.version);
    const sides: Side[] = [ours, { reports: true, run: torch.forward }];
    const [timed, peer] = await interleave(sides, timing(suite));
    suite.row(timeRow(text, timed, peer, goal));
    return timed;
  } finally {
    await torch.stop();
  }
}

/** MACs a second of the float linear op in cache, on one thread, times the threads. */
async function measuredPeak(suite: Suite): Promise<number> {
  const { rows, inputs, outputs } = PEAK_SHAPE;
  const [x, weight] = [randomFloats(rows * inputs, 1), randomFloats(outputs * inputs, 2)];
  const [bias, y] = [randomFloats(outputs, 3), emptyFloats(rows * outputs)];
  const calls = 20;
  const run = (): void => {
    for (let i = 0; i < calls; i++) native().linear(x, weight, bias, y, rows, inputs, outputs);
  };
  const prepare = onBackend(1, native().backends()[0]);
  const [{ min }] = await interleave([{ prepare, run }], timing(suite));
  return (suite.threads * calls * rows * inputs * outputs) / min;
}

/** Prints the time of one step by op; what is left is JavaScript and data. */
function profile(suite: Suite, step: () => void): void {
  const spent = new Map<string, number>();
  const run = Graph.prototype.run;
  Graph.prototype.run = function timed(this: Graph, op: OpName, ...operands: Operand[]): void {
    const began = performance.now();
    run.call(this, op, ...operands);
    spent.set(op, (spent.get(op) ?? 0) + performance.now() - began);
  };
  const began = performance.now();
  try {
    step();
  } finally {
    Graph.prototype.run = run;
  }
  suite.say(`one step: ${(performance.now() - began).toFixed(0)} ms`);
  for (const [op, time] of [...spent].sort((a, b) => b[1] - a[1]).slice(0, 20)) {
    suite.say(`${time.toFixed(1).padStart(9)} ms  ${op}`);
  }
}
