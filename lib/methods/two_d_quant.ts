/**
 * 2DQuant (NeurIPS 2024): DOBI ranges for every site, one a tensor, then all bounds trained by
 * distillation (DQC) with the weights frozen. Its released loss carries a second division by the
 * number of pixels, which Adam's epsilon stands for here (spr2q-method 4.3), and features whose
 * weight vanishes beside the pixels'.
 */
import { RECIPES, type Recipe } from "../quant/recipes.ts";
import { calibratedStudent } from "../quant/student.ts";
import { distillationStage } from "../train/distillation_stage.ts";
import type { Method } from "../train/method.ts";
import { trainablesOf } from "../train/trainables.ts";

/** Its released configuration: constant rate of 1e-2, batches of 16, 4,000 steps. */
export const DQC: Recipe = {
  ...RECIPES.released,
  iterations: 4000,
  osrcIterations: 0,
  batch: 16,
  beta1: 0.9,
  beta2: 0.99,
};

export const TWO_D_QUANT: Method = {
  name: "2dquant",
  title: "2DQuant (NeurIPS 2024): DOBI, then bounds trained by distillation",
  architectures: ["mambairv2", "swinir"],
  scope: "table4",
  recipe: DQC,
  recipeName: "2dquant",
  takesLeads: true,
  prepare(context) {
    const { memory, teacher, policy, recipe, seed, calibration } = context;
    const student = calibratedStudent(memory, teacher, policy, calibration(), seed);
    const trainables = trainablesOf(student.sites, recipe);
    const { iterations } = recipe;
    const bounds = distillationStage(context, student, { name: "bounds", iterations, trainables });
    return { student, stages: [bounds] };
  },
};
