/**
 * A whole quantisation run: calibrate, RGT, OSRC, pack. Yields events; what it leaves in the output
 * folder: model.safetensors, table.json, log.jsonl, checkpoint.safetensors.
 */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Graph, Var } from "../autograd.ts";
import { type DeviceChoice, memoryOn, readable, resolveDevice } from "../device.ts";
import { Spr2qError } from "../errors.ts";
import type { Model } from "../infer/model.ts";
import { ensureWritableDir, writeFileAtomic } from "../io/files.ts";
import { fromRgbFloat } from "../io/png.ts";
import { psnrY } from "../metrics/psnr.ts";
import { Router } from "../nn/routing.ts";
import type { Memory } from "../tensor.ts";
import type { Adam } from "./adam.ts";
import { readCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { JsonLines, type Position, type Stage, type TrainEvent } from "./events.ts";
import { PatchSource } from "./patches.ts";
import {
  type OsrcStart,
  osrcOptimiser,
  rgtOptimiser,
  type RoutingTable,
  runOsrc,
  runRgt,
  type StageContext,
} from "./stages.ts";
import { packStudent } from "../quant/pack.ts";
import { type Leads, policyFor, type Scope } from "../quant/policy.ts";
import { type Recipe, RECIPES, type RecipeName } from "../quant/recipes.ts";
import { createStudent, type Student } from "../quant/student.ts";

export interface QuantizeOptions {
  readonly bits: number;
  readonly train: string;
  readonly out: string;
  readonly recipe: RecipeName;
  readonly scope: Scope;
  readonly leads?: Partial<Leads>;
  /** Rank of a rectifier, number of rectifiers a layer (0: bounds only). */
  readonly rank: number;
  readonly rectifiers: number;
  readonly iterations?: number;
  readonly osrc?: number;
  readonly batch?: number;
  readonly patch?: number;
  readonly seed: number;
  readonly resume?: boolean;
  readonly signal?: AbortSignal;
  /** Where to train; default the CPU. "cuda" where there is none is ERR_GPU_UNAVAILABLE. */
  readonly device?: DeviceChoice;
  /** Version of this library, written into the file. */
  readonly version: string;
}

/** What a finished run hands over. */
export interface QuantizeResult {
  readonly model: string;
  readonly table: RoutingTable;
  readonly student: Student;
  readonly bytes: number;
  readonly seconds: number;
}

function recipeOf(options: QuantizeOptions): Recipe {
  const base = RECIPES[options.recipe];
  return {
    ...base,
    iterations: options.iterations ?? base.iterations,
    osrcIterations: options.osrc ?? base.osrcIterations,
    batch: options.batch ?? base.batch,
    patch: options.patch ?? base.patch,
  };
}

/** Runs the quantisation of `model`; returns what was made. See {@link QuantizeOptions}. */
export async function* quantizeModel(
  model: Model,
  options: QuantizeOptions,
): AsyncGenerator<TrainEvent, QuantizeResult> {
  const began = performance.now();
  if (model.quantised) {
    throw new Spr2qError(
      "ERR_ARGUMENT",
      `${model.path} is quantised already; expected a full-precision model.`,
    );
  }
  const recipe = recipeOf(options);
  const { seed, out, bits } = options;
  await ensureWritableDir(out);
  const device = resolveDevice(options.device ?? "cpu");
  const memory = memoryOn(device);
  const teacher = model.net.on(memory);
  const { scale, window } = teacher.config;
  const patch = Math.max(recipe.patch, window);
  const source = await PatchSource.open(options.train, scale, patch);
  const policy = policyFor(options.scope, bits, options.leads);
  const calibrationPatch = source.fits(Math.max(64, patch)) ? Math.max(64, patch) : patch;
  const patches = source.draw(recipe.calibrationPatches, calibrationPatch, seed, 0xca11b);
  const shape = { experts: options.rectifiers, rank: options.rank };
  const student = createStudent(memory, model.net, policy, recipe, shape, patches.low, seed);

  const settings = {
    recipe: recipe.name,
    scope: policy.scope,
    bits,
    rank: shape.rank,
    rectifiers: shape.experts,
    iterations: recipe.iterations,
    osrc: recipe.osrcIterations,
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
  const context: StageContext = {
    memory,
    teacher,
    student,
    source,
    recipe: { ...recipe, patch },
    seed,
    signal: options.signal,
    saveEvery: 100,
    osrcStart: state?.stage === "osrc" ? readStart(state.tensors) : null,
    save: async (stage: Stage, adam: Adam, iteration: number) => {
      const tensors = new Map<string, Float32Array>(rgt.state());
      if (stage === "osrc") {
        for (const [key, data] of adam.state()) tensors.set(`osrc.${key}`, data);
        writeStart(tensors, context.osrcStart);
      }
      await writeCheckpoint(path, { stage, iteration, identity, tensors });
      return { type: "checkpoint", stage, iteration, file: path };
    },
    heldOut: () => heldOutQuality(memory, student, source, patch),
  };
  const rgt = rgtOptimiser(context);
  const osrc = osrcOptimiser(context);
  const emit = (event: TrainEvent): TrainEvent => {
    log.write(event);
    return event;
  };
  try {
    yield emit({
      type: "start",
      command: "spr2q quantize",
      seed,
      settings,
      ...(at ? { resumedFrom: at } : {}),
    });
    if (state) {
      rgt.restore(state.tensors, state.stage === "rgt" ? state.iteration : recipe.iterations);
      if (state.stage === "osrc") {
        const own = [...state.tensors].filter(([k]) => k.startsWith("osrc."));
        osrc.restore(new Map(own.map(([k, v]) => [k.slice(5), v])), state.iteration);
      }
    }
    if (state?.stage !== "osrc") {
      for await (const event of runRgt(context, rgt, state?.iteration ?? 0)) yield emit(event);
    }
    if (state?.stage === "osrc") student.sites.gates.clear();
    const second = runOsrc(context, osrc, state?.stage === "osrc" ? state.iteration : 0);
    let step = await second.next();
    for (; !step.done; step = await second.next()) yield emit(step.value);
    const table = step.value;
    const bytes = packStudent(
      student,
      {
        recipe: recipe.name,
        seed: `${seed}`,
        method: "spr2q",
        library: options.version,
        rank: `${shape.rank}`,
        rectifiers: `${shape.experts}`,
        iterations: `${recipe.iterations}`,
        osrc: `${recipe.osrcIterations}`,
        batch: `${recipe.batch}`,
        patch: `${patch}`,
        source_sha256: model.sha256,
      },
      memory,
    );
    const file = join(out, "model.safetensors");
    await writeFileAtomic(file, bytes);
    await writeFileAtomic(
      join(out, "table.json"),
      Buffer.from(`${JSON.stringify(table, null, 1)}\n`),
    );
    const seconds = (performance.now() - began) / 1000;
    yield emit({
      type: "done",
      seconds,
      summary: { model: file, bytes: bytes.length, kept: table.kept },
    });
    return { model: file, table, student, bytes: bytes.length, seconds };
  } catch (error) {
    // A disk that is full before there is anything to resume from: leave nothing behind.
    const lost = error instanceof Spr2qError && error.code === "ERR_IO" && !existsSync(path);
    if (lost) await rm(logPath, { force: true });
    throw error;
  } finally {
    log.close();
  }
}

/** dB on the luma of a crop that training never draws, against the HR image. */
async function heldOutQuality(
  memory: Memory,
  student: Student,
  source: PatchSource,
  patch: number,
): Promise<number> {
  const { low, high } = source.heldOut(patch);
  student.sites.samples = 1;
  const graph = new Graph("running", memory);
  const image = new Var(graph.input(low.data), low.shape);
  const router = new Router({ mode: "sampled", seed: 0 });
  const output = student.net.forward(graph, image, student.sites, router);
  const [, height, width] = high.shape;
  const psnr = psnrY(
    fromRgbFloat(readable(output.data), width, height, 8),
    fromRgbFloat(high.data, width, height, 8),
    source.scale,
  );
  router.release();
  graph.dispose();
  return psnr;
}

/** The start of OSRC as tensors of a checkpoint; the loss is kept as the bits of a double. */
function writeStart(tensors: Map<string, Float32Array>, start: OsrcStart | null): void {
  if (!start) return;
  tensors.set("start.loss", new Float32Array(Float64Array.of(start.loss).buffer));
  for (const [key, logits] of start.logits) tensors.set(`start.logits.${key}`, logits);
}

function readStart(tensors: ReadonlyMap<string, Float32Array>): OsrcStart {
  const bits = Float32Array.from(tensors.get("start.loss") ?? [0, 0]);
  const prefix = "start.logits.";
  const logits = [...tensors].filter(([key]) => key.startsWith(prefix));
  return {
    loss: new Float64Array(bits.buffer)[0],
    logits: new Map(logits.map(([key, data]) => [key.slice(prefix.length), data])),
  };
}
