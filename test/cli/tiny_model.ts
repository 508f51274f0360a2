/** Small models written to files, and a way to run a command, for the tests of the commands. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Var } from "../../lib/autograd.ts";
import type { Command } from "../../lib/cli/args.ts";
import { runMain } from "../../lib/cli/main.ts";
import type { RasterImage } from "../../lib/io/raster.ts";
import { writeSafetensors } from "../../lib/io/safetensors.ts";
import { MAMBAIRV2 } from "../../lib/models/mambairv2.ts";
import type { MambaConfig } from "../../lib/models/mambairv2_parameters.ts";
import type { Network } from "../../lib/models/network.ts";
import { packStudent } from "../../lib/quant/pack.ts";
import type { Policy } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { initialise } from "../../lib/train/pretrain.ts";
import { random } from "../io/helpers.ts";
import { TINY as LARGER } from "../tiny_net.ts";

/** A x2 network of the family with 10 thousand parameters. */
export const TINY: MambaConfig = { ...LARGER, depths: [1, 1] };

/** Seeded weights; layer scales of 1, so that what a layer does is seen in the result. */
export function tinyNetwork(seed = 1): Network {
  const net = initialise(MAMBAIRV2, TINY, seed);
  for (const [name, { data }] of net.weights) if (/scale[12]$/.test(name)) data.fill(1);
  return net;
}

/** Writes a full-precision network; returns its path. */
export async function writeTinyModel(folder: string, seed = 1, net?: Network): Promise<string> {
  const { weights } = net ?? tinyNetwork(seed);
  const tensors = new Map(
    [...weights].map(([name, { shape, data }]) => [name, { shape, dtype: "f32" as const, data }]),
  );
  const path = join(folder, "tiny.safetensors");
  await writeFile(path, writeSafetensors(tensors, {}));
  return path;
}

/** Writes a network calibrated under `policy` and packed; returns its path. */
export async function writePackedModel(
  folder: string,
  policy: Policy,
  net: Network = tinyNetwork(),
): Promise<string> {
  const next = random(5);
  const patches = new Var(Float32Array.from({ length: 16 * 16 * 3 }, next), [1, 16, 16, 3]);
  const shape = { experts: 0, rank: 0 };
  const student = createStudent(new Memory(), net, policy, RECIPES.best, shape, patches, 3);
  const path = join(folder, "model.safetensors");
  await writeFile(path, packStudent(student, { recipe: "quick", seed: "3" }));
  return path;
}

/** An image of smooth seeded colours. */
export function picture(
  width: number,
  height: number,
  channels: 1 | 2 | 3 | 4 = 3,
  depth: 8 | 16 = 8,
  seed = 7,
): RasterImage {
  const next = random(seed);
  const waves = Array.from({ length: channels }, () => [next() * 0.9, next() * 0.9, next() * 6]);
  const peak = depth === 8 ? 255 : 65535;
  const count = width * height * channels;
  const data = depth === 8 ? new Uint8Array(count) : new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const [fx, fy, phase] = waves[i % channels];
    const pixel = Math.floor(i / channels);
    const wave = Math.sin(fx * (pixel % width) + fy * Math.floor(pixel / width) + phase);
    data[i] = Math.round((0.5 + 0.4 * wave) * peak);
  }
  return { width, height, channels, depth, data };
}

/** What a command left behind. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs one command line as the program would, in this process. */
export async function runCommand(
  command: Command,
  argv: readonly string[],
  signal: AbortSignal = new AbortController().signal,
  onErr: (text: string) => void = () => {},
): Promise<Outcome> {
  let [out, err] = ["", ""];
  const code = await runMain([command.name, ...argv], {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
      onErr(text);
    },
    errIsTty: true,
    columns: 80,
    signal,
    now: () => performance.now(),
    commands: [{ name: command.name, summary: "", load: async () => ({ command }) }],
  });
  return { code, out, err };
}
