/** What a quantisation run is asked for, and the refusal of what a method cannot do. */
import { chosenDevice, type DeviceChoice } from "../device.ts";
import { expected, Spr2qError } from "../errors.ts";
import type { Model } from "../infer/model.ts";
import type { Leads, Scope } from "../quant/policy.ts";
import {
  type GateKind,
  type Recipe,
  type RecipeName,
  RECIPES,
  type Tuning,
} from "../quant/recipes.ts";
import type { Method } from "./method.ts";

export interface RunOptions {
  /** Bits of weights and activations: 8, 4, 2 or 1. */
  readonly bits: number;
  /** Folder of HR images, each side at least `patch` x scale pixels. */
  readonly train: string;
  /** Folder for the results; made where it is missing. */
  readonly out: string;
  /** Default: the method's own. */
  readonly recipe?: RecipeName;
  /** Default: the method's own. */
  readonly scope?: Scope;
  /** Switches single leads on or off; default: the scope's. */
  readonly leads?: Partial<Leads>;
  /** Rank of a rectifier; methods without ignore it. */
  readonly rank: number;
  /** Rectifiers of a layer, 0 for bounds only; methods without ignore it. */
  readonly rectifiers: number;
  /** Condition the weights before anything else (CondiQuant); spr2q only, default false. */
  readonly condition?: boolean;
  /** Steps of RGT; default: the recipe's. */
  readonly iterations?: number;
  /** Steps of OSRC; default: the recipe's. */
  readonly osrc?: number;
  /** Patches of a step; default: the recipe's. */
  readonly batch?: number;
  /** LR pixels a side of a patch; default: the recipe's. */
  readonly patch?: number;
  /** Places looked at for each patch; default: the recipe's. spr2q only. */
  readonly candidates?: number;
  /** Gates of the rectifiers; default: the recipe's. spr2q only. */
  readonly gate?: GateKind;
  /** What is tuned; default: the recipe's. spr2q only. */
  readonly tuning?: Tuning;
  /** Of patches, rectifiers and sampled routing; the same seed ends in the same bytes. */
  readonly seed: number;
  /** Go on from the checkpoint in `out`, where there is one; default false. */
  readonly resume?: boolean;
  /** Ends the run, leaving a checkpoint: ERR_ABORTED. */
  readonly signal?: AbortSignal;
  /** Where to train; default the CPU. "cuda" where there is none is ERR_GPU_UNAVAILABLE. */
  readonly device?: DeviceChoice;
  /** Version of this library, written into the file. */
  readonly version: string;
}

/** The recipe of a run: that which it names, or the method's, with what the run sets itself. */
export function recipeOf(method: Method, options: RunOptions): Recipe {
  const base = options.recipe ? RECIPES[options.recipe] : method.recipe;
  const { candidates } = options;
  return {
    ...base,
    iterations: options.iterations ?? base.iterations,
    osrcIterations: options.osrc ?? base.osrcIterations,
    batch: options.batch ?? base.batch,
    patch: options.patch ?? base.patch,
    candidates: candidates === undefined ? base.candidates : () => candidates,
    gate: options.gate ?? base.gate,
    tuning: options.tuning ?? base.tuning,
  };
}

/** ERR_ARGUMENT unless `method` can quantise `model` as `options` ask. */
export function checkRequest(model: Model, method: Method, options: RunOptions): void {
  if (model.quantised) {
    throw new Spr2qError(
      "ERR_ARGUMENT",
      `${model.path} is quantised already; expected a full-precision model.`,
    );
  }
  const { name } = model.net.architecture;
  if (!method.architectures.includes(name)) {
    const known = method.architectures.join(" or ");
    throw expected("ERR_ARGUMENT", `--method ${method.name}: architecture`, known, name);
  }
  if (options.condition && method.name !== "spr2q") {
    const fix = "CondiQuant by itself is --method condiquant.";
    throw expected("ERR_ARGUMENT", "--condition", "--method spr2q", method.name, fix);
  }
  const own = options.gate ?? options.tuning ?? options.candidates;
  if (own !== undefined && method.name !== "spr2q") {
    const what = "--gate, --tune and --candidates";
    throw expected("ERR_ARGUMENT", what, "--method spr2q", method.name);
  }
  const wanted = options.scope === "best" || Object.values(options.leads ?? {}).includes(true);
  if (wanted && !method.takesLeads) {
    throw expected(
      "ERR_ARGUMENT",
      `--method ${method.name}`,
      "scope table4 or released, and no leads (its quantisers are its own)",
      `scope ${options.scope ?? method.scope}, leads ${JSON.stringify(options.leads ?? {})}`,
    );
  }
}

/** Where `method` runs: `auto` keeps those that need host memory on the processor. */
export function deviceFor(method: Method, choice: DeviceChoice): "cpu" | "cuda" {
  if (method.onGpu || choice === "cpu") return chosenDevice(choice);
  if (choice === "auto") return "cpu";
  const fix = "Use --device cpu: what this method computes beside the network reads host memory.";
  throw expected("ERR_ARGUMENT", "--device cuda", "--method spr2q", method.name, fix);
}
