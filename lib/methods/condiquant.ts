/**
 * CondiQuant (arXiv 2502.15478): weights moved to better-conditioned ones with the same outputs
 * (lib/quant/conditioning.ts), then 2DQuant's pipeline. The full-precision network stays the teacher.
 */
import { conditionedCopy } from "../quant/conditioning.ts";
import type { Network } from "../models/network.ts";
import { calibratedStudent } from "../quant/student.ts";
import { distillationStage } from "../train/distillation_stage.ts";
import type { Method, MethodContext } from "../train/method.ts";
import { trainablesOf } from "../train/trainables.ts";
import { DQC } from "./two_d_quant.ts";

/** Calibration batch whose patches the weights are conditioned on (that of the bounds is 0). */
const CONDITIONING_BATCH = 1;

/** The teacher with conditioned weights, and the median condition numbers before and after. */
export function conditionedTeacher(context: MethodContext): {
  readonly net: Network;
  readonly metadata: Readonly<Record<string, string>>;
} {
  const { memory, teacher, policy, seed } = context;
  const patches = context.calibration(undefined, CONDITIONING_BATCH);
  const { net, layers } = conditionedCopy(memory, teacher, policy, patches, seed);
  const median = (of: (layer: { before: number; after: number }) => number): string => {
    const sorted = [...layers.values()].map(of).sort((a, b) => a - b);
    return sorted[sorted.length >> 1].toPrecision(4);
  };
  const condition = `${median(({ before }) => before)} to ${median(({ after }) => after)}`;
  return { net, metadata: { condition_numbers: condition } };
}

export const CONDIQUANT: Method = {
  name: "condiquant",
  title: "CondiQuant (arXiv 2502.15478): weights conditioned, then 2DQuant",
  architectures: ["mambairv2", "swinir"],
  scope: "table4",
  recipe: DQC,
  recipeName: "2dquant",
  takesLeads: true,
  prepare(context) {
    const { memory, policy, recipe, seed, calibration } = context;
    const { net, metadata } = conditionedTeacher(context);
    const student = calibratedStudent(memory, net, policy, calibration(), seed);
    const trainables = trainablesOf(student.sites, recipe);
    const { iterations } = recipe;
    const bounds = distillationStage(context, student, { name: "bounds", iterations, trainables });
    return { student, stages: [bounds], metadata };
  },
};
