/**
 * A whole quantisation run by any method: prepare (calibrate), the method's stages, pack. Yields
 * events; what it leaves in the output folder: model.safetensors, log.jsonl, checkpoint.safetensors,
 * and table.json where the method routes.
 */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type DeviceChoice, memoryOn, chosenDevice } from "../device.ts";
import { expected, Spr2qError } from "../errors.ts";
import type { Model } from "../infer/model.ts";
import { ensureWritableDir, writeFileAtomic } from "../io/files.ts";
import { packStudent } from "../quant/pack.ts";
import { type Leads, policyFor, type Scope } from "../quant/policy.ts";
import type { DynamicGate } from "../quant/gate.ts";
import {
  type GateKind,
  type Recipe,
  type RecipeName,
  RECIPES,
  type Tuning,
} from "../quant/recipes.ts";
import type { Student } from "../quant/student.ts";
import type { Memory } from "../tensor.ts";
import { readCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { heldOutQuality } from "./held_out.ts";
import { JsonLines, type Position, type TrainEvent } from "./events.ts";
import type { Method, MethodContext, MethodStage, Prepared, RoutingTable } from "./method.ts";
import { PatchSource } from "./patches.ts";
import { runStage } from "./stages.ts";
import { stateOf } from "./state.ts";

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

/** What a finished run hands over. */
export interface QuantizeResult {
  /** Path of model.safetensors. */
  readonly model: string;
  /** Null for methods without routing. */
  readonly table: RoutingTable | null;
  /** The quantised network as trained; internal, for this version only. */
  readonly student: Student;
  /** Input-dependent gates as trained; the file has their mean. None where gates are static. */
  readonly dynamicGates: ReadonlyMap<string, DynamicGate>;
  /** Bytes of model.safetensors. */
  readonly bytes: number;
  /** Seconds that this call took. */
  readonly seconds: number;
  /** What the run was made with, as its log and file say. */
  readonly settings: Settings;
}

type Settings = Readonly<Record<string, string | number | boolean>>;

/** Calibration batches are numbered from here. */
const CALIBRATION = 0xca11b;

function recipeOf(method: Method, options: RunOptions): Recipe {
  const base = options.recipe ? RECIPES[options.recipe] : method.recipe;
  return {
    ...base,
    iterations: options.iterations ?? base.iterations,
    osrcIterations: options.osrc ?? base.osrcIterations,
    batch: options.batch ?? base.batch,
    patch: options.patch ?? base.patch,
    gate: options.gate ?? base.gate,
    tuning: options.tuning ?? base.tuning,
  };
}

/** ERR_ARGUMENT unless `method` can quantise `model` as `options` ask. */
function checkRequest(model: Model, method: Method, options: RunOptions): void {
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
  if ((options.gate || options.tuning) && method.name !== "spr2q") {
    throw expected("ERR_ARGUMENT", "--gate and --tune", "--method spr2q", method.name);
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
function deviceFor(method: Method, choice: DeviceChoice): "cpu" | "cuda" {
  if (method.onGpu || choice === "cpu") return chosenDevice(choice);
  if (choice === "auto") return "cpu";
  const fix = "Use --device cpu: what this method computes beside the network reads host memory.";
  throw expected("ERR_ARGUMENT", "--device cuda", "--method spr2q", method.name, fix);
}

/** Quantises `model` by `method`; returns what was made. See {@link RunOptions}. */
export async function* runMethod(
  model: Model,
  method: Method,
  options: RunOptions,
): AsyncGenerator<TrainEvent, QuantizeResult> {
  const began = performance.now();
  checkRequest(model, method, options);
  const recipe = recipeOf(method, options);
  const { seed, out, bits } = options;
  await ensureWritableDir(out);
  const device = deviceFor(method, options.device ?? "cpu");
  const memory = memoryOn(device);
  const teacher = model.net.on(memory);
  const { scale, window } = teacher.config;
  const patch = Math.max(recipe.patch, window);
  const source = await PatchSource.open(options.train, scale, patch);
  const scoped = policyFor(options.scope ?? method.scope, bits, options.leads);
  const policy = method.policy?.(scoped, teacher.architecture) ?? scoped;
  const calibrationPatch = source.fits(Math.max(64, patch)) ? Math.max(64, patch) : patch;
  const groups = { experts: options.rectifiers, rank: options.rank };
  const context: MethodContext = {
    memory,
    teacher,
    policy,
    source,
    recipe: { ...recipe, patch },
    seed,
    groups,
    condition: options.condition ?? false,
    calibration: (count = recipe.calibrationPatches, index = 0) =>
      source.draw(count, calibrationPatch, seed, CALIBRATION + index).low,
  };
  const prepared = method.prepare(context);
  const { student, stages } = prepared;
  const settings: Settings = {
    method: method.name,
    recipe: options.recipe ?? method.recipeName,
    scope: policy.scope,
    bits,
    ...prepared.metadata,
    iterations: recipe.iterations,
    batch: recipe.batch,
    patch,
    scale,
    ...policy.leads,
    ...(device === "cuda" ? { device } : {}), // bits are those of one backend
  };
  const identity = JSON.stringify({ ...settings, seed, source: model.sha256 });
  const path = join(out, "checkpoint.safetensors");
  const state = options.resume ? await readCheckpoint(path, identity) : null;
  const at: Position | undefined = state
    ? { stage: state.stage, iteration: state.iteration }
    : undefined;
  const logPath = join(out, "log.jsonl");
  const log = JsonLines.open(logPath, at);
  const emit = (event: TrainEvent): TrainEvent => {
    log.write(event);
    return event;
  };
  const start = state ? stages.findIndex(({ name }) => name === state.stage) : 0;
  const save = async (index: number, iteration: number): Promise<TrainEvent> => {
    const tensors = new Map<string, Float32Array>();
    for (const stage of stages.slice(0, index + 1))
      for (const [key, data] of stage.state()) tensors.set(`${stage.name}.${key}`, data);
    const stage = stages[index].name;
    await writeCheckpoint(path, { stage, iteration, identity, tensors });
    return { type: "checkpoint", stage, iteration, file: path };
  };
  try {
    const resumed = at ? { resumedFrom: at } : {};
    yield emit({ type: "start", command: "spr2q quantize", seed, settings, ...resumed });
    if (state) restoreStages(stages, start, state.iteration, state.tensors);
    for (let index = start; index < stages.length; index++) {
      const from = state && index === start ? state.iteration : 0;
      const steps = runStage(stages[index], from, options.signal, {
        save: (iteration) => save(index, iteration),
        heldOut: () => heldOutQuality(memory, student, source, patch),
        state: () => stateOf(student.sites),
        resumed: state !== null && index === start,
      });
      for await (const event of steps) yield emit(event);
    }
    const result = await writeResult(out, prepared, settings, options, model.sha256, memory);
    const seconds = (performance.now() - began) / 1000;
    const { file: written, bytes, table } = result;
    if (table) yield emit({ type: "route", ...table });
    yield emit({
      type: "done",
      seconds,
      summary: { model: written, bytes, ...(table ? { kept: table.kept } : {}) },
    });
    const dynamicGates = prepared.dynamicGates ?? new Map<string, DynamicGate>();
    return { model: written, table, student, dynamicGates, bytes, seconds, settings };
  } catch (error) {
    // A disk that is full before there is anything to resume from: leave nothing behind.
    const lost = error instanceof Spr2qError && error.code === "ERR_IO" && !existsSync(path);
    if (lost) await rm(logPath, { force: true });
    throw error;
  } finally {
    log.close();
  }
}

/** Puts back the states of the stages up to `start`, of which `iteration` steps are done. */
function restoreStages(
  stages: readonly MethodStage[],
  start: number,
  iteration: number,
  tensors: ReadonlyMap<string, Float32Array>,
): void {
  stages.slice(0, start + 1).forEach((stage, i) => {
    const prefix = `${stage.name}.`;
    const own = [...tensors].filter(([key]) => key.startsWith(prefix));
    const state = new Map(own.map(([key, data]) => [key.slice(prefix.length), data]));
    stage.restore(state, i === start ? iteration : stage.iterations);
  });
}

/** Model file and routing table. */
async function writeResult(
  out: string,
  { student, table: tableOf, metadata }: Prepared,
  settings: Settings,
  { seed, version }: RunOptions,
  sha256: string,
  memory: Memory,
): Promise<{ file: string; bytes: number; table: RoutingTable | null }> {
  const table = tableOf?.() ?? null;
  const told = ["method", "recipe", "iterations", "batch", "patch"] as const;
  const bytes = packStudent(
    student,
    {
      ...Object.fromEntries(told.map((key) => [key, `${settings[key]}`])),
      ...metadata,
      seed: `${seed}`,
      library: version,
      source_sha256: sha256,
    },
    memory,
  );
  const file = join(out, "model.safetensors");
  await writeFileAtomic(file, bytes);
  const tablePath = join(out, "table.json");
  if (table) await writeFileAtomic(tablePath, Buffer.from(`${JSON.stringify(table, null, 1)}\n`));
  // The table of another run would be shown as this model's.
  else await rm(tablePath, { force: true });
  return { file, bytes: bytes.length, table };
}
