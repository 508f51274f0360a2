/**
 * DBDC + PaC (CVPR 2023): activation ranges by density-based dual clipping, the mean over several
 * batches; weights between their extremes in every output channel; then two short trainings, of the
 * activations' bounds and of the weights'. Its first and last convolutions at 8 bit stay in float
 * here, as for every method. Its gradient scale of 1/sqrt(numel (2^(n-1) - 1)) is left out: Adam
 * divides it away.
 */
import { calibrateMean } from "../quant/calibrate.ts";
import { densityClipped, minMax } from "../quant/ranges.ts";
import { RECIPES } from "../quant/recipes.ts";
import { QuantisedSites } from "../quant/sites.ts";
import { roundedCopy } from "../quant/student.ts";
import type { Trainable } from "../train/adam.ts";
import { distillationStage } from "../train/distillation_stage.ts";
import type { Method } from "../train/method.ts";
import { trainablesOf } from "../train/trainables.ts";

/** Batches of the running mean, and their patches. */
const BATCHES = { count: 30, patches: 2 } as const;
/** Rates at the start and end of a cosine. */
const RATES = { activations: [5e-3, 2e-3], weights: [5e-6, 2e-6] } as const;

/** Share of the values that may be clipped; published for 8 and 4 bit. */
const clippedShare = (bits: number): number => (bits === 8 ? 1e-5 : 5e-4);

export const DBDC_PAC: Method = {
  name: "dbdc-pac",
  title: "DBDC + PaC (CVPR 2023): dual clipping by density, then two phases of trained bounds",
  architectures: ["mambairv2", "swinir"],
  scope: "table4",
  recipe: { ...RECIPES.released, iterations: 500, osrcIterations: 0, batch: 2 },
  recipeName: "dbdc-pac",
  takesLeads: false,
  policy: (policy) => ({ ...policy, leads: { ...policy.leads, rowBounds: true } }),
  prepare(context) {
    const { memory, teacher, policy, recipe, seed, calibration } = context;
    const net = roundedCopy(teacher, policy);
    const sites = new QuantisedSites(policy, net.architecture);
    const batches = Array.from({ length: BATCHES.count }, (_, i) =>
      calibration(BATCHES.patches, i),
    );
    const clipped = densityClipped(clippedShare(policy.bits));
    calibrateMean(memory, net, sites, batches, seed, (_, { role }) =>
      role === "weight" ? minMax : clipped,
    );
    const student = { net, sites };
    const all = trainablesOf(sites, { ...recipe, relativeBounds: false, rates: () => UNIT });
    const phase = (name: "activations" | "weights", iterations: number, offset: number) => {
      const [first, last] = RATES[name];
      const cosine = (at: number): number =>
        last + ((first - last) * (1 + Math.cos((Math.PI * at) / iterations))) / 2;
      const moves = (one: Trainable): boolean =>
        /\.w\.(lower|upper)$/.test(one.name) === (name === "weights");
      const trainables = all.filter(moves);
      const resting = all.filter((one) => !moves(one));
      const settings = { name, iterations, trainables, resting, rate: cosine, offset };
      return distillationStage(context, student, settings);
    };
    const half = recipe.iterations >> 1;
    const stages = [
      phase("activations", recipe.iterations - half, 0),
      phase("weights", half, recipe.iterations),
    ];
    return { student, stages };
  },
};

/** Rates of 1: the phases' own are absolute. */
const UNIT = { bound: 1, rectifier: 1 } as const;
