/**
 * APHQ-ViT (CVPR 2025): MLPs first made one-sided (ReLU for GELU, fitted to their old outputs), then
 * blocks reconstructed as in fima-q under the average perturbation Hessian. A ReLU in front of a
 * quantiser that begins at 0 is that quantiser's clipping, so inference has neither GELU nor ReLU.
 * fc2 is first fitted in closed form, since the paper's 20,000 steps a block are rarely at hand.
 */
import { calibrate, type SearchFor } from "../quant/calibrate.ts";
import { copyOf } from "../quant/conditioning.ts";
import { inputMoments } from "../quant/covariance.ts";
import { dobi, oneSidedDobi } from "../quant/ranges.ts";
import { RECIPES } from "../quant/recipes.ts";
import { QuantisedSites } from "../quant/sites.ts";
import { calibratedStudent } from "../quant/student.ts";
import { MlpStage, positiveQuantile, refitSecond, watchMlps } from "../train/mlp.ts";
import type { Method } from "../train/method.ts";
import { perturbationHessian } from "../train/perturbation.ts";
import { evenOutNorms } from "./fima_q.ts";
import { type Importance, reconstruction } from "./reconstruction.ts";

/** Share of the positive values between fc1 and fc2 that stay unclipped. */
const kept = (bits: number): number => (bits <= 2 ? 0.98 : 0.99);
/** Patches that MLPs are fitted on, and those that the Hessian is taken on. */
const PATCHES = { mlp: 8, hessian: 2 } as const;

const searchFor: SearchFor = (site) => (site.endsWith("mlp.fc2.x") ? oneSidedDobi : dobi);

export const APHQ_VIT: Method = {
  name: "aphq-vit",
  title: "APHQ-ViT (CVPR 2025): one-sided MLPs, blocks fitted by a perturbation Hessian, AdaRound",
  architectures: ["swinir"],
  scope: "table4",
  recipe: { ...RECIPES.released, iterations: 4000, osrcIterations: 0, batch: 16 },
  recipeName: "aphq-vit",
  takesLeads: false,
  policy: (policy) => ({
    ...policy,
    leads: { ...policy.leads, rowBounds: true },
    activation: "relu",
  }),
  prepare(context) {
    const { memory, teacher, policy, recipe, seed, calibration } = context;
    const original = copyOf(teacher);
    evenOutNorms(original, inputMoments(memory, teacher, policy, calibration(), seed));
    const net = copyOf(original);
    const most = new Map<string, number>();
    const patches = calibration(PATCHES.mlp, 1);
    watchMlps(memory, original, patches, (prefix, cache) => {
      most.set(prefix, positiveQuantile(cache.middle, kept(policy.bits)));
      refitSecond(net, prefix, cache, most.get(prefix)!);
    });
    const student = calibratedStudent(memory, net, policy, calibration(), seed, searchFor);
    const few = calibration(PATCHES.hessian, 1);
    const known = new Map<number, Float64Array>();
    const hessian = (layer: number): Float64Array => {
      const found = known.get(layer) ?? perturbationHessian(memory, teacher, few, layer, seed);
      known.set(layer, found);
      return found;
    };
    const half = recipe.iterations >> 1;
    const mlps = new MlpStage({
      memory,
      original,
      net: student.net,
      patches,
      batch: recipe.batch,
      iterations: half,
      seed,
      importance: hessian,
      most,
    });
    const importance: Importance = (layer) => weighted(hessian(layer));
    const blocks = reconstruction(
      { ...context, recipe: { ...recipe, iterations: recipe.iterations - half } },
      student,
      importance,
      () => recalibrate(),
    );
    /** Ranges of the trained MLPs, written into the bounds that the stage trains. */
    const recalibrate = (): void => {
      const sites = new QuantisedSites(policy, student.net.architecture);
      calibrate(memory, student.net, sites, calibration(), seed, searchFor);
      for (const [site, { lower, upper }] of sites.bounds) {
        student.sites.bounds.get(site)!.lower.data.set(lower.data);
        student.sites.bounds.get(site)!.upper.data.set(upper.data);
      }
    };
    return { student, stages: [mlps, blocks] };
  },
};

/** Mean of h (z - y)^2 with h by channel. */
function weighted(h: Float64Array): ReturnType<Importance> {
  return {
    loss: (z, y, _, gradient) => {
      let total = 0;
      for (let i = 0; i < z.length; i++) {
        const d = z[i] - y[i];
        const weight = h[i % h.length] / z.length;
        total += weight * d * d;
        gradient[i] = 2 * weight * d;
      }
      return total;
    },
  };
}
