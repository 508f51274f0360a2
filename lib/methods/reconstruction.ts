/** Block reconstruction with AdaRound and QDrop, common to fima-q and aphq-vit. */
import { Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { codedModules } from "../quant/layout.ts";
import type { Student } from "../quant/student.ts";
import { SoftRounding } from "../train/adaround.ts";
import type { Trainable } from "../train/adam.ts";
import { BlockStage } from "../train/blocks.ts";
import type { MethodContext, MethodStage } from "../train/method.ts";
import { trainablesOf } from "../train/trainables.ts";

/** Adam's rates: of AdaRound's alpha, and of activation bounds (cosine to 0). */
const RATES = { alpha: 1e-3, activations: 4e-5 } as const;
/** Share of the inputs that are the teacher's. */
const DROP = 0.5;
/** Patches that blocks are fitted on, and those of them that a metric's gradient is taken on. */
const PATCHES = { all: 16, metric: 4 } as const;
/** AdaRound's regulariser: weight, powers from first to last, share of steps before it begins. */
const REGULARISER = { weight: 0.01, first: 20, last: 2, warmUp: 0.2 } as const;

/** A metric on a block's outputs. */
export interface Metric {
  before?(at: number): void;
  /** Loss of z against y (images * tokens, channels); writes the gradient. */
  loss(z: F32, y: F32, images: number, gradient: F32): number;
  state?(): ReadonlyMap<string, F32>;
  restore?(state: ReadonlyMap<string, Float32Array>): void;
}

/** Makes the metric of one block, which is fitted in `steps` steps. */
export type Importance = (layer: number, patches: Var, steps: number) => Metric;

/** The stage. Every linear module's weight is rounded anew; activation bounds move with it. */
export function reconstruction(
  context: MethodContext,
  student: Student,
  importance: Importance,
  start?: () => void,
): MethodStage {
  const { memory, teacher, policy, recipe, seed, calibration } = context;
  const { net, sites } = student;
  const unit = { ...recipe, relativeBounds: false, rates: () => ({ bound: 1, rectifier: 1 }) };
  // Behind a ReLU the lower bound is the 0 that it clips at.
  const fixed = policy.activation === "relu" ? /\.w\.\w+$|fc2\.x\.lower$/ : /\.w\.\w+$/;
  const bounds = trainablesOf(sites, unit).filter(({ name }) => !fixed.test(name));
  const steps = Math.ceil(recipe.iterations / net.layerCount);
  const linear = codedModules(net.architecture, policy).filter(({ kind }) => kind === "linear");
  const patches = calibration(PATCHES.all, 1);
  const [, h, w, c] = patches.shape;
  const few = new Var(patches.data.subarray(0, PATCHES.metric * h * w * c), [
    PATCHES.metric,
    h,
    w,
    c,
  ]);
  return new BlockStage({
    memory,
    teacher,
    student,
    patches,
    batch: recipe.batch,
    iterations: recipe.iterations,
    drop: DROP,
    seed,
    ...(start ? { start } : {}),
    rate: () => 1,
    begin: (layer) => {
      const prefix = net.layerPrefixes[layer];
      const metric = importance(layer, few, steps);
      let progress = 0;
      const cosine = (): number => 0.5 * (1 + Math.cos(Math.PI * progress));
      const own = bounds
        .filter(({ name }) => name.startsWith(prefix))
        .map((one): Trainable => ({ ...one, rate: () => RATES.activations * cosine() }));
      const roundings = linear.map(({ name, tensor }) => {
        const weight = net.get(prefix + tensor);
        const rounding = new SoftRounding(weight, sites.bounds.get(`${prefix + name}.w`)!);
        sites.soft.set(prefix + name, (g) => rounding.soft(g));
        return { key: prefix + name, weight, rounding };
      });
      const alphas = roundings.map(
        ({ key, rounding }): Trainable => ({
          name: `${key}.alpha`,
          value: rounding.alpha,
          rate: () => RATES.alpha,
        }),
      );
      return {
        trainables: [...alphas, ...own],
        before: (at) => {
          progress = at / steps;
          const late = (progress - REGULARISER.warmUp) / (1 - REGULARISER.warmUp);
          for (const { rounding } of roundings) {
            rounding.weight = late < 0 ? 0 : REGULARISER.weight;
            rounding.power =
              REGULARISER.last + (REGULARISER.first - REGULARISER.last) * (1 - Math.max(0, late));
          }
          metric.before?.(at);
          for (const { value } of alphas) value.grad = null;
        },
        loss: (_, z, wanted, gradient) => {
          const images = recipe.batch;
          const penalty = roundings.reduce((sum, { rounding }) => sum + rounding.penalty(), 0);
          return metric.loss(z, wanted, images, gradient) + penalty;
        },
        finish: () => {
          for (const { key, weight, rounding } of roundings) {
            rounding.harden(weight);
            sites.soft.delete(key);
          }
        },
        state: () => metric.state?.() ?? new Map(),
        restore: (state) => metric.restore?.(state),
      };
    },
  });
}
