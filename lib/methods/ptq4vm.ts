/**
 * PTQ4VM (WACV 2025): in the state-space module, activations with a static range for each place of a
 * token, weights symmetric in every output channel, channels smoothed between the two, and steps
 * fitted layer by layer so that outputs keep their direction (JLSS). A place is a position in the
 * window for in_proj (raster order) and a rank of the scan's sequence, in 64 parts, for the others:
 * images have no fixed length here. Scales are folded where a norm or x_proj's rows can take them
 * (not at x_proj, whose input the scan reads too) and then stay; zero points move with the bounds.
 */
import type { Network } from "../models/network.ts";
import type { InputMoments } from "../quant/covariance.ts";
import { inputMoments } from "../quant/covariance.ts";
import { rescaleNorm, setWeight, weightOf } from "../quant/folding.ts";
import { powerGrid, symmetricPowerGrid } from "../quant/ranges.ts";
import { cosineLoss } from "../train/block_losses.ts";
import { BlockStage } from "../train/blocks.ts";
import type { Method } from "../train/method.ts";
import { trainablesOf } from "../train/trainables.ts";
import {
  DT_PROJ,
  IN_NORM,
  IN_PROJ,
  inMamba,
  NORM,
  OUT_PROJ,
  prepareMamba,
  ROUTER,
  searchInside,
  smoothing,
  X_PROJ,
} from "./mamba_module.ts";
import { DQC } from "./two_d_quant.ts";

/** Power of the error that the first steps are chosen by. */
const POWER = 2.4;
/** Adam's rate of steps in JLSS, as published for both kinds. */
const JLSS_RATE = 5e-4;
/** Patches that the layers are fitted on. */
const JLSS_PATCHES = 8;

/** Smooths in_proj and out_proj within their norms, dt_proj within x_proj's rows. */
function smooth(net: Network, prefix: string, moments: ReadonlyMap<string, InputMoments>): void {
  const scalesOf = (name: string): Float64Array =>
    smoothing(moments.get(prefix + name)!, weightOf(net, prefix + name));
  const inputs = [prefix + IN_PROJ, prefix + ROUTER];
  rescaleNorm(net, prefix + IN_NORM, inputs, scalesOf(IN_PROJ));
  rescaleNorm(net, prefix + NORM, [prefix + OUT_PROJ], scalesOf(OUT_PROJ));
  const scales = scalesOf(DT_PROJ);
  const [x, dt] = [weightOf(net, prefix + X_PROJ), weightOf(net, prefix + DT_PROJ)];
  for (let i = 0; i < scales.length * x.cols; i++) x.data[i] /= scales[Math.floor(i / x.cols)];
  dt.data.forEach((value, i) => {
    dt.data[i] = value * scales[i % dt.cols];
  });
  setWeight(net, prefix + X_PROJ, x);
  setWeight(net, prefix + DT_PROJ, dt);
}

export const PTQ4VM: Method = {
  name: "ptq4vm",
  title: "PTQ4VM (WACV 2025): ranges by token, smoothing, steps fitted layer by layer",
  architectures: ["mambairv2"],
  scope: "table4",
  recipe: DQC,
  recipeName: "2dquant",
  takesLeads: false,
  policy: (policy) => ({
    ...policy,
    granularity: Object.fromEntries(
      [IN_PROJ, X_PROJ, DT_PROJ, OUT_PROJ].map((name) => [name, { weight: "row" as const }]),
    ),
    tokenRanges: { [IN_PROJ]: "window", [X_PROJ]: "rank", [DT_PROJ]: "rank", [OUT_PROJ]: "rank" },
  }),
  prepare(context) {
    const { memory, teacher, policy, recipe, seed, calibration } = context;
    // Half of the budget fits layers, half trains all bounds end to end.
    const half = recipe.iterations >> 1;
    const moments = inputMoments(memory, teacher, policy, calibration(), seed);
    const prepared = prepareMamba(
      { ...context, recipe: { ...recipe, iterations: recipe.iterations - half } },
      { fold: (net, prefix) => smooth(net, prefix, moments) },
      searchInside((_, role) => (role === "weight" ? symmetricPowerGrid(POWER) : powerGrid(POWER))),
    );
    const { student } = prepared;
    const unit = { ...recipe, relativeBounds: false, rates: () => ({ bound: 1, rectifier: 1 }) };
    const all = trainablesOf(student.sites, unit).filter(({ name }) => inMamba(name));
    const blocks = new BlockStage({
      memory,
      teacher,
      student,
      patches: calibration(JLSS_PATCHES, 1),
      batch: recipe.batch,
      iterations: half,
      drop: 0,
      seed,
      rate: () => JLSS_RATE,
      begin: (layer) => {
        const prefix = student.net.layerPrefixes[layer];
        const own = all.filter(({ name }) => name.startsWith(prefix));
        const channels = student.net.config.channels;
        return {
          trainables: own,
          loss: (_, z, wanted, gradient) => cosineLoss(z, wanted, channels, gradient),
        };
      },
    });
    return { student, stages: [blocks, ...prepared.stages] };
  },
};
