/**
 * What a quantisation method is to the frame that runs it (run.ts): which networks and sites it
 * quantises with which kinds of bounds, how it makes a student from a full-precision teacher, and
 * the stages that train what is left to train. lib/methods/ has one file for each.
 */
import type { Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import type { Architecture } from "../models/architecture.ts";
import type { Network } from "../models/network.ts";
import type { DynamicGate } from "../quant/gate.ts";
import type { Policy, Scope } from "../quant/policy.ts";
import type { Recipe } from "../quant/recipes.ts";
import type { GroupShape, Student } from "../quant/student.ts";
import type { Memory } from "../tensor.ts";
import type { Losses } from "./distill.ts";
import type { Stage } from "./events.ts";
import type { PatchSource } from "./patches.ts";

/** A quantisation method. */
export interface Method {
  /** Its name on the command line and in metadata. */
  readonly name: string;
  /** Its name in sentences, where it was published, and what it does in a few words. */
  readonly title: string;
  /** Names of the architectures that it is defined on. */
  readonly architectures: readonly string[];
  /** Sites that it quantises where no scope is asked for. */
  readonly scope: Scope;
  /** Its own optimiser and budget, used where no recipe is asked for. */
  readonly recipe: Recipe;
  /** Name of that recipe in metadata. */
  readonly recipeName: string;
  /** True where spr2q's leads (half exponents, offsets, row bounds) may be switched on. */
  readonly takesLeads: boolean;
  /** True where all that it does has been proven on tensors that lie on the GPU. */
  readonly onGpu?: boolean;
  /** The kinds of bounds that it has on `architecture`, from those of the scope; default: the same. */
  policy?(policy: Policy, architecture: Architecture): Policy;
  /** Calibrates a student and lists its stages. A function of the context alone: resumed runs repeat it. */
  prepare(context: MethodContext): Prepared;
}

/** What the frame gives to a method. */
export interface MethodContext {
  readonly memory: Memory;
  readonly teacher: Network;
  readonly policy: Policy;
  readonly source: PatchSource;
  /** Optimiser and budget; `iterations`, `batch` and `patch` are those of the run. */
  readonly recipe: Recipe;
  readonly seed: number;
  /** Rectifier groups, for the methods that have them. */
  readonly groups: GroupShape;
  /** CondiQuant's pre-conditioning of the weights was asked for (spr2q only). */
  readonly condition: boolean;
  /** Calibration batch `index` of `count` LR patches (count, h, w, 3); batch 0 is every method's. */
  calibration(count?: number, index?: number): Var;
}

/** A student ready for training. */
export interface Prepared {
  readonly student: Student;
  /** In the order in which they run; none for methods that only calibrate. */
  readonly stages: readonly MethodStage[];
  /** The routing table, once all stages have run. */
  readonly table?: () => RoutingTable;
  /** Input-dependent gates as trained, by module key; the packed file has their mean. */
  readonly dynamicGates?: ReadonlyMap<string, DynamicGate>;
  /** What the model file should say beside the common entries. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** One stage of training; the frame draws no data and knows no losses. */
export interface MethodStage {
  readonly name: Stage;
  /** May be 0: begin() and end() are called all the same. */
  readonly iterations: number;
  /** Before the first step of a stage that is not resumed within. */
  begin?(): void;
  /** Step `at` (from 0): losses before it, and the rate factor of the schedule. */
  step(at: number): StepResult;
  /** After the last step. */
  end?(): void;
  /** Everything that steps have changed, by names of this stage; copied at once. */
  state(): ReadonlyMap<string, F32>;
  /** Puts back what state() gave after `done` steps; ERR_RESUME where it does not fit. */
  restore(state: ReadonlyMap<string, Float32Array>, done: number): void;
}

/** What a step tells. */
export interface StepResult extends Losses {
  readonly rate: number;
}

/** Routing table: gates of every rectified layer. */
export interface RoutingTable {
  /** Gates by layer, each list with a sum of 1. */
  readonly layers: Readonly<Record<string, readonly number[]>>;
  /** Mean calibration loss before OSRC; null where it did not run. */
  readonly lossBefore: number | null;
  /** The same after it. */
  readonly lossAfter: number | null;
  /** Which gates were kept: those of OSRC ("calibrated") where they lost no more, else of RGT. */
  readonly kept: "calibrated" | "trained";
}
