/**
 * A whole quantisation run by any method: prepare (calibrate), the method's stages, pack. Yields
 * events; what it leaves in the output folder: model.safetensors, log.jsonl, checkpoint.safetensors,
 * and table.json where the method routes.
 */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { memoryOn } from "../device.ts";
import { Spr2qError } from "../errors.ts";
import type { Model } from "../infer/model.ts";
import { ensureWritableDir, writeFileAtomic } from "../io/files.ts";
import { packStudent } from "../quant/pack.ts";
import { policyFor } from "../quant/policy.ts";
import type { DynamicGate } from "../quant/gate.ts";
import type { Student } from "../quant/student.ts";
import type { Memory } from "../tensor.ts";
import { readCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { heldOutQuality } from "./held_out.ts";
import { JsonLines, type Position, type TrainEvent } from "./events.ts";
import type { Method, MethodContext, MethodStage, Prepared, RoutingTable } from "./method.ts";
import { PatchSource } from "./patches.ts";
import { checkRequest, deviceFor, recipeOf, type RunOptions } from "./request.ts";
import { runStage } from "./stages.ts";
import { stateOf } from "./state.ts";

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
