/**
 * The networks that the suites run: full precision from a file, quantised from files or, where none
 * are given, by calibration alone on the bundled images (which fixes bits and bounds, all that the
 * time depends on).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../binding.ts";
import { type Model, openModel } from "../infer/model.ts";
import { Plan } from "../infer/plan.ts";
import { readSafetensors } from "../io/safetensors.ts";
import { packStudent, unpackModel } from "../quant/pack.ts";
import { policyFor } from "../quant/policy.ts";
import { RECIPES } from "../quant/recipes.ts";
import { createStudent } from "../quant/student.ts";
import { Memory } from "../tensor.ts";
import { PatchSource } from "../train/patches.ts";
import type { Suite } from "./suite.ts";

/** Network and sites: what a plan is traced from. */
export type Runnable = Pick<Model, "net" | "sites">;

/** A network with its quantised versions by bits. */
export interface Family {
  readonly name: string;
  readonly float: Model;
  /** Full-precision file. */
  readonly path: string;
  readonly packed: ReadonlyMap<number, Runnable>;
  /** False where the bundled model stands in: the goals are not for it. */
  readonly official: boolean;
}

/** Patches and their LR side: the bundled images are 48 pixels wide at x4. */
const CALIBRATION_PATCHES = 4;
const CALIBRATION_SIDE = 32;

/** Folder of the bundled images. */
export function bundledImages(): string {
  return join(packageRoot(), "assets", "images");
}

/** The bundled x2 model. */
export function bundledModel(): string {
  return join(packageRoot(), "assets", "model", "mambairv2-light-x2.safetensors");
}

/** Bytes of a packed file of `model` at `bits`, calibrated on the bundled images, seed 0. */
export async function calibratedBytes(model: Model, bits: number): Promise<Uint8Array> {
  const source = await PatchSource.open(bundledImages(), model.net.config.scale, CALIBRATION_SIDE);
  const { low } = source.draw(CALIBRATION_PATCHES, CALIBRATION_SIDE, 0, 0xca11b);
  const shape = { experts: 0, rank: 0 };
  const policy = policyFor("best", bits);
  const student = createStudent(new Memory(), model.net, policy, RECIPES.best, shape, low, 0);
  return packStudent(student, { recipe: "bench", seed: "0" });
}

/** The frozen network of a packed file's bytes. */
export function runnableOf(bytes: Uint8Array, name: string): Runnable {
  const { tensors, metadata } = readSafetensors(bytes, name);
  return unpackModel(tensors, metadata, name);
}

/** Path of an official weight file below the data folder, or null. */
export function officialWeights(suite: Suite, scale: number): string | null {
  if (!suite.data) return null;
  const path = join(suite.data, "weights", `mambairv2_lightSR_x${scale}.pth`);
  return existsSync(path) ? path : null;
}

/** Name of a network in rows, for example "mambairv2 x4". */
export function networkName(model: Model): string {
  return `${model.net.architecture.title} x${model.net.config.scale}`;
}

/**
 * `path` with its versions at `bits`: given files of the same network and scale first, calibration
 * for the rest.
 */
export async function familyOf(
  suite: Suite,
  path: string,
  bits: readonly number[],
  official: boolean,
): Promise<Family> {
  const float = await openModel(path);
  const packed = new Map<number, Runnable>();
  for (const file of suite.packed) {
    const model = await openModel(file);
    const isSame =
      model.net.architecture.name === float.net.architecture.name &&
      model.net.config.scale === float.net.config.scale;
    if (isSame && model.quantised) packed.set(model.quantised.policy.bits, model);
  }
  for (const width of bits) {
    if (packed.has(width)) continue;
    suite.say(`calibrating ${networkName(float)} at ${width} bit`);
    packed.set(width, runnableOf(await calibratedBytes(float, width), `${width} bit`));
  }
  const name = official ? networkName(float) : `bundled tiny ${networkName(float)}`;
  return { name, float, path, packed, official };
}

/** A plan of one network for an image size; routing as the peers have it. */
export function planOf({ net, sites }: Runnable, width: number, height: number): Plan {
  return new Plan(net, sites, width, height, { mode: "argmax", seed: 0 });
}

/** A smooth picture (height, width, 3) in 0..1. */
export function testPicture(width: number, height: number): Float32Array<ArrayBuffer> {
  const picture = new Float32Array(width * height * 3);
  for (let i = 0; i < picture.length; i++) picture[i] = 0.5 + 0.4 * Math.sin(i * 0.01);
  return picture;
}
