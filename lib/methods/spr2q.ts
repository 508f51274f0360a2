/**
 * SPR2Q as stages: rectifier group training (RGT) moves bounds, rectifiers and gates; one-shot
 * rectifier calibration (OSRC, Eq. 12) then moves the gates alone and keeps them only where the
 * calibration loss fell.
 */
import { assign, readable } from "../device.ts";
import { Spr2qError } from "../errors.ts";
import { conditionedTeacher } from "./condiquant.ts";
import { RECIPES } from "../quant/recipes.ts";
import type { DynamicGate } from "../quant/gate.ts";
import { gatesOf } from "../quant/rectifier.ts";
import { createStudent, type Student } from "../quant/student.ts";
import { distill } from "../train/distill.ts";
import { distillationStage } from "../train/distillation_stage.ts";
import type { Method, MethodContext, MethodStage, RoutingTable } from "../train/method.ts";
import { gateTrainables, trainablesOf } from "../train/trainables.ts";

/** Batches on which OSRC compares the gates before and after. */
const CALIBRATION_BATCHES = 4;
/** Patches of OSRC are numbered from here. */
const OSRC_OFFSET = 1_000_000;

/** What OSRC must beat, and returns to where it does not. */
interface OsrcStart {
  readonly loss: number;
  readonly logits: ReadonlyMap<string, Float32Array>;
}

export const SPR2Q: Method = {
  name: "spr2q",
  title: "SPR2Q: bounds, rectifier groups and static gates, trained by distillation",
  architectures: ["mambairv2", "swinir"],
  scope: "best",
  recipe: RECIPES.best,
  recipeName: "best",
  takesLeads: true,
  onGpu: true,
  prepare(context) {
    const { memory, teacher, policy, recipe, groups, seed } = context;
    const from = context.condition ? conditionedTeacher(context) : { net: teacher, metadata: {} };
    const patches = context.calibration();
    const student = createStudent(memory, from.net, policy, recipe, groups, patches, seed);
    const rgt = distillationStage(context, student, {
      name: "rgt",
      iterations: recipe.iterations,
      trainables: trainablesOf(student.sites, recipe),
      candidates: recipe.candidates(policy.bits),
    });
    const osrc = new Osrc(context, student);
    return {
      student,
      stages: [rgt, osrc],
      table: () => osrc.table(),
      dynamicGates: osrc.dynamicGates,
      metadata: {
        ...from.metadata,
        rank: `${groups.rank}`,
        rectifiers: `${groups.experts}`,
        osrc: `${recipe.osrcIterations}`,
        gate: recipe.gate,
        tuning: recipe.tuning,
        candidates: `${recipe.candidates(policy.bits)}`,
      },
    };
  },
};

class Osrc implements MethodStage {
  readonly name = "osrc";
  readonly iterations: number;
  readonly #context: MethodContext;
  readonly #student: Student;
  readonly #stage: MethodStage;
  #start: OsrcStart | null = null;
  #after: number | null = null;
  #kept: RoutingTable["kept"] = "trained";
  readonly #dynamic: ReadonlyMap<string, DynamicGate>;

  constructor(context: MethodContext, student: Student) {
    const { recipe, policy } = context;
    this.#context = context;
    this.#student = student;
    this.#dynamic = new Map(student.sites.gates);
    const gated = student.sites.rectifiers.size > 0 && recipe.gate !== "uniform";
    this.iterations = gated ? recipe.osrcIterations : 0;
    const trainables = gateTrainables(student.sites, recipe);
    const gates = new Set(trainables.map(({ value }) => value));
    this.#stage = distillationStage(context, student, {
      name: "osrc",
      iterations: this.iterations,
      trainables,
      resting: trainablesOf(student.sites, recipe).filter(({ value }) => !gates.has(value)),
      beta1: 0.9,
      beta2: 0.999,
      offset: OSRC_OFFSET,
      candidates: recipe.candidates(policy.bits),
    });
  }

  begin(): void {
    if (this.#student.sites.gates.size > 0) this.#freezeGates();
    if (this.iterations === 0) return;
    const groups = [...this.#student.sites.rectifiers];
    this.#start = {
      loss: this.#calibrationLoss(),
      logits: new Map(
        groups.map(([key, { logits }]) => [key, Float32Array.from(readable(logits.data))]),
      ),
    };
  }

  step(at: number): ReturnType<MethodStage["step"]> {
    return this.#stage.step(at);
  }

  /** The input-dependent gates that RGT trained; none where gates are static. */
  get dynamicGates(): ReadonlyMap<string, DynamicGate> {
    return this.#dynamic;
  }

  /** Gates that did not lower the calibration loss are put back. */
  end(): void {
    const start = this.#start;
    if (!start) return;
    this.#after = this.#calibrationLoss();
    if (this.#after <= start.loss) this.#kept = "calibrated";
    else
      for (const [key, group] of this.#student.sites.rectifiers)
        assign(group.logits.data, start.logits.get(key)!);
  }

  table(): RoutingTable {
    const groups = [...this.#student.sites.rectifiers];
    const layers = Object.fromEntries(groups.map(([key, group]) => [key, gatesOf(group)]));
    const lossBefore = this.#start?.loss ?? null;
    return { layers, lossBefore, lossAfter: this.#after, kept: this.#kept };
  }

  /** The optimiser's state and the start; its loss as the bits of a double. */
  state(): Map<string, Float32Array<ArrayBuffer>> {
    const tensors = new Map<string, Float32Array<ArrayBuffer>>(this.#stage.state());
    const start = this.#start;
    if (start) {
      tensors.set("start.loss", new Float32Array(Float64Array.of(start.loss).buffer));
      for (const [key, logits] of start.logits)
        tensors.set(`start.logits.${key}`, Float32Array.from(logits));
    }
    return tensors;
  }

  restore(state: ReadonlyMap<string, Float32Array>, done: number): void {
    this.#student.sites.gates.clear();
    this.#stage.restore(state, done);
    const bits = state.get("start.loss");
    if (!bits) throw new Spr2qError("ERR_RESUME", "The checkpoint lacks the start of OSRC.");
    const prefix = "start.logits.";
    const logits = [...state].filter(([key]) => key.startsWith(prefix));
    this.#start = {
      loss: new Float64Array(Float32Array.from(bits).buffer)[0],
      logits: new Map(
        logits.map(([key, data]) => [key.slice(prefix.length), Float32Array.from(data)]),
      ),
    };
  }

  /**
   * Replaces dynamic gates by static ones: logits = log(mean gate over the calibration batches). A
   * router's gate never sees a token in training (routes are replayed) and stays uniform.
   */
  #freezeGates(): void {
    const { sites } = this.#student;
    const totals = new Map<string, Float64Array>();
    sites.gateTap = (key, gates) => {
      const total = totals.get(key) ?? new Float64Array(gates.length);
      gates.forEach((gate, i) => {
        total[i] += gate;
      });
      totals.set(key, total);
    };
    this.#calibrationLoss();
    sites.gateTap = null;
    sites.gates.clear();
    for (const [key, total] of totals) {
      const means = total.map((sum) => Math.log(sum / CALIBRATION_BATCHES));
      assign(sites.rectifiers.get(key)!.logits.data, Float32Array.from(means));
    }
  }

  #calibrationLoss(): number {
    const { memory, teacher, source, recipe, seed } = this.#context;
    let total = 0;
    for (let i = 0; i < CALIBRATION_BATCHES; i++) {
      const { low } = source.draw(recipe.batch, recipe.patch, seed + 0xca1, i);
      const weight = recipe.featureWeight;
      total += distill(memory, teacher, this.#student, low, weight, seed + i, false).loss;
    }
    return total / CALIBRATION_BATCHES;
  }
}
