/**
 * Measures a cell: quantise (or take the network as it is), then evaluate on every data set that is
 * present. What is done is written at once, so a stopped run goes on where it was: training from
 * its checkpoint, evaluation at the next data set.
 */
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { availableParallelism, cpus } from "node:os";
import { basename, join } from "node:path";
import { native } from "../binding.ts";
import { Spr2qError } from "../errors.ts";
import { evaluateBy, evaluateFolder, type Upscale } from "../infer/evaluate.ts";
import { type Model, openModel } from "../infer/model.ts";
import { upscaleOnTape } from "../infer/tape.ts";
import { ensureWritableDir, writeFileAtomic } from "../io/files.ts";
import { listImages } from "../io/images.ts";
import type { QuantizeResult } from "../methods/quantize.ts";
import { Memory } from "../tensor.ts";
import {
  CELL_FORMAT,
  type Cell,
  type CellSpec,
  cellId,
  type Effort,
  NO_EFFORT,
  type Reading,
  type Score,
  type Scores,
} from "./cell.ts";
import { type Dataset, findDatasets } from "./datasets.ts";
import { cannotQuantise, paceOf, quantiseFor } from "./quantise.ts";
import { type StoredCell, writeCell } from "./store.ts";
import type { FoundModel } from "./weights.ts";
import type { Workshop } from "./workshop.ts";

/** What came of a cell. */
export type Outcome =
  | { readonly kind: "measured" | "kept"; readonly stored: StoredCell }
  | { readonly kind: "missing"; readonly why: string };

/** The CPU, kernels and threads of this process. */
export function deviceText(): string {
  const cpu = cpus()[0]?.model.trim() ?? "unknown CPU";
  return `${cpu}, ${native().backendName()}, ${availableParallelism()} threads`;
}

/** Brings the cell of `spec` and `seed` up to date with `readings`; `known` are all cells on disk. */
export async function measureCell(
  spec: CellSpec,
  seed: number,
  readings: readonly Reading[],
  shop: Workshop,
  known: readonly StoredCell[],
): Promise<Outcome> {
  const sets = await findDatasets(shop.images, spec.scale);
  const found =
    spec.method === "bicubic" ? null : await shop.weights.find(spec.network, spec.scale);
  if (!found && spec.method !== "bicubic") {
    return { kind: "missing", why: `no full-precision ${spec.network} x${spec.scale} weights` };
  }
  const why = spec.settings && found ? cannotQuantise(spec, found.model) : null;
  if (why) return { kind: "missing", why };
  const sha256 = found?.source.sha256 ?? "";
  const id = cellId(spec, seed, shop.budget.text, sha256);
  const stored = known.find((one) => one.id === id);
  const missing = (cell: Cell, how: Reading): boolean =>
    sets.some(({ name }) => !cell.readings[how]?.[name]);
  const finished =
    stored?.cell.failed ?? !readings.some((how) => !stored || missing(stored.cell, how));
  if (stored && finished) return { kind: "kept", stored };

  const folder = join(shop.models, id);
  const file = join(folder, "model.safetensors");
  let cell = stored?.cell;
  const tape = readings.includes("own gates") && (!cell || missing(cell, "own gates"));
  if (spec.settings && found && (!cell || !existsSync(file) || tape)) {
    cell = await quantised(spec, seed, found, shop, id, cell, tape ? sets : []);
  }
  cell ??= emptyCell(spec, seed, found, shop.version);
  await writeCell(shop.results, { id, cell });
  if (cell.failed) return { kind: "measured", stored: { id, cell } };
  const model = spec.settings ? await openModel(file) : (found?.model ?? null);
  for (const how of readings) {
    for (const set of sets) {
      if (cell.readings[how]?.[set.name]) continue;
      const score = await scoreOf(model, spec, set, how, seed, shop);
      const scores: Scores = { ...cell.readings[how], [set.name]: score };
      cell = { ...cell, readings: { ...cell.readings, [how]: scores }, date: today() };
      await writeCell(shop.results, { id, cell });
    }
  }
  return { kind: "measured", stored: { id, cell } };
}

function today(): string {
  return new Date().toISOString().slice(0, 10);
}

function emptyCell(spec: CellSpec, seed: number, found: FoundModel | null, version: string): Cell {
  return {
    format: CELL_FORMAT,
    ...spec,
    seed,
    budget: NO_EFFORT,
    weights: found?.source ?? null,
    train: null,
    device: deviceText(),
    seconds: 0,
    cpuSeconds: 0,
    bytes: null,
    readings: {},
    date: today(),
    version,
  };
}

/** Seconds that earlier, stopped attempts at a cell have cost. */
interface Spent {
  readonly seconds: number;
  readonly cpuSeconds: number;
}

async function readJson<T>(path: string): Promise<T | null> {
  if (!existsSync(path)) return null;
  return JSON.parse(await readFile(path, "utf8")) as T;
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFileAtomic(path, Buffer.from(`${JSON.stringify(value)}\n`));
}

/** The effort of a cell; one that follows from minutes is fixed at the first attempt. */
async function effortFor(
  spec: CellSpec,
  model: Model,
  shop: Workshop,
  folder: string,
): Promise<Effort> {
  const { budget } = shop;
  if (budget.kind === "steps") return budget.effort(spec.network);
  const path = join(folder, "effort.json");
  const fixed = await readJson<Effort>(path);
  if (fixed) return fixed;
  const effort = await paceOf(spec, model, shop, budget, join(folder, "pace"));
  await writeJson(path, effort);
  return effort;
}

async function quantised(
  spec: CellSpec,
  seed: number,
  { model, source }: FoundModel,
  shop: Workshop,
  id: string,
  before: Cell | undefined,
  tapeSets: readonly Dataset[],
): Promise<Cell> {
  const folder = join(shop.models, id);
  await ensureWritableDir(folder);
  const effort = await effortFor(spec, model, shop, folder);
  const path = join(folder, "spent.json");
  const earlier = (await readJson<Spent>(path)) ?? { seconds: 0, cpuSeconds: 0 };
  const [began, cpu] = [performance.now(), process.cpuUsage()];
  const spent = (): Spent => {
    const { user, system } = process.cpuUsage(cpu);
    return {
      seconds: earlier.seconds + (performance.now() - began) / 1000,
      cpuSeconds: earlier.cpuSeconds + (user + system) / 1e6,
    };
  };
  const common: Cell = {
    ...emptyCell(spec, seed, { model, source }, shop.version),
    train: { folder: basename(shop.train), images: (await listImages(shop.train)).length },
  };
  try {
    const onCheckpoint = (): Promise<void> => writeJson(path, spent());
    const place = { folder, id, onCheckpoint };
    const { result, ran } = await quantiseFor(spec, seed, model, effort, shop, place);
    const own = await ownGateScores(result, tapeSets, shop);
    const cell: Cell = {
      ...common,
      budget: ran,
      ...spent(),
      bytes: result.bytes,
      readings: { ...before?.readings, ...own },
    };
    for (const name of ["checkpoint.safetensors", "spent.json", "effort.json", "pace"]) {
      await rm(join(folder, name), { recursive: true, force: true });
    }
    return cell;
  } catch (error) {
    const stopped = error instanceof Spr2qError && error.code === "ERR_ABORTED";
    if (stopped) await writeJson(path, spent());
    // Other rows go on: that this one cannot be trained at its rates is a result.
    const native = error instanceof Spr2qError && error.code === "ERR_NATIVE";
    if (native && error.message.startsWith("Training diverged"))
      return { ...common, budget: effort, ...spent(), failed: error.message };
    throw error;
  }
}

/**
 * Scores with each image's own gates, on the tape: everything else is as in the packed file. Empty
 * without sets to score.
 */
async function ownGateScores(
  { student, dynamicGates }: QuantizeResult,
  sets: readonly Dataset[],
  shop: Workshop,
): Promise<Partial<Record<Reading, Scores>>> {
  if (sets.length === 0) return {};
  const { net, sites } = student;
  const memory = new Memory();
  for (const [key, gate] of dynamicGates) sites.gates.set(key, gate);
  sites.samples = 1;
  const scores: Record<string, Score> = {};
  for (const { name, hr, lr, images } of sets) {
    const upscale: Upscale = (image) =>
      upscaleOnTape(memory, student, image, { routing: "sampled", seed: 0 });
    const onProgress = (share: number): void => {
      memory.trim();
      const done = Math.round(share * images);
      shop.onStep({ label: `${name}, own gates`, done, total: images, unit: "images" });
    };
    const { signal } = shop;
    const found = await evaluateBy(upscale, net.config.scale, hr, lr, { signal, onProgress });
    scores[name] = { psnr: found.psnr, ssim: found.ssim, images, seconds: found.seconds };
  }
  sites.gates.clear();
  return { "own gates": scores };
}

/** Quality of a model (or of bicubic interpolation) on one set. */
async function scoreOf(
  model: Model | null,
  spec: CellSpec,
  set: Dataset,
  how: Reading,
  seed: number,
  shop: Workshop,
): Promise<Score> {
  const label = `${spec.method} x${spec.scale}${spec.bits === 32 ? "" : ` ${spec.bits} bit`}`;
  const { psnr, ssim, seconds } = await evaluateFolder(model, spec.scale, set.hr, set.lr, {
    tiling: "none",
    routing: how === "argmax" ? "argmax" : "sampled",
    // A quantised cell's seed is that of its training: the noise of the test stays the same.
    seed: spec.settings ? 0 : seed,
    signal: shop.signal,
    onProgress: (share) =>
      shop.onStep({
        label: `${label}, seed ${seed}: ${set.name} ${how}`,
        done: Math.round(share * set.images),
        total: set.images,
        unit: "images",
      }),
  });
  return { psnr, ssim, images: set.images, seconds };
}
