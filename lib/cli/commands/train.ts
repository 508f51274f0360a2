/** `spr2q train`: a full-precision network from scratch, against HR images. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type DeviceChoice, memoryOn, chosenDevice } from "../../device.ts";
import { expected, Spr2qError } from "../../errors.ts";
import { ensureWritableDir, writeFileAtomic } from "../../io/files.ts";
import { openModel } from "../../infer/model.ts";
import type { Architecture, NetworkConfig } from "../../models/architecture.ts";
import { ARCHITECTURES, architectureNamed, configProblem } from "../../models/registry.ts";
import type { Network } from "../../models/network.ts";
import { saveFloat } from "../../models/save.ts";
import { readCheckpoint, writeCheckpoint } from "../../train/checkpoint.ts";
import { JsonLines } from "../../train/events.ts";
import { PatchSource } from "../../train/patches.ts";
import { initialise, pretrain, pretrainOptimiser } from "../../train/pretrain.ts";
import { continuing, interpolating } from "../../train/start.ts";
import { defineCommand } from "../args.ts";
import { deviceOption } from "../run_options.ts";

/** Reads a network configuration: the light one, with the entries of the JSON file over it. */
async function readConfig(
  architecture: Architecture,
  path: string | undefined,
  scale: number,
): Promise<NetworkConfig> {
  const base = architecture.lightConfig(scale);
  if (!path) return base;
  let given: unknown;
  try {
    given = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new Spr2qError("ERR_CONFIG", `${path}: ${(cause as Error).message}`, { cause });
  }
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw expected("ERR_CONFIG", path, "an object of sizes", JSON.stringify(given));
  }
  for (const key of Object.keys(given)) {
    if (!(key in base)) {
      throw expected("ERR_CONFIG", `${path}: key`, Object.keys(base).join(", "), `"${key}"`);
    }
  }
  const config = { ...base, ...given, scale };
  const problem = configProblem(architecture, config);
  if (problem) throw expected("ERR_CONFIG", path, problem, JSON.stringify(given));
  return config;
}

/** A network to train, started as --start says. */
async function started(
  architecture: Architecture,
  config: NetworkConfig,
  seed: number,
  start: string,
): Promise<Network> {
  const net = initialise(architecture, config, seed);
  if (start === "interpolation") interpolating(net);
  else if (start !== "random") {
    const { net: trained, quantised } = await openModel(start);
    if (quantised) {
      throw expected("ERR_CHECKPOINT", start, "a full-precision model", "a quantised one");
    }
    continuing(net, trained, start);
  }
  return net;
}

export const command = defineCommand({
  name: "train",
  summary: "train a full-precision network",
  usage: "--arch mambairv2|swinir --scale S --train DIR --out DIR [--config FILE]",
  options: [
    {
      name: "arch",
      type: "choice",
      choices: ARCHITECTURES.map(({ name }) => name),
      default: "mambairv2",
      help: "architecture",
    },
    { name: "scale", type: "choice", choices: [2, 3, 4], default: 2, help: "upscaling factor" },
    {
      name: "config",
      type: "string",
      value: "FILE",
      help: "JSON with sizes that differ from the published light network",
    },
    { name: "train", type: "string", required: true, value: "DIR", help: "folder of HR PNGs" },
    {
      name: "out",
      type: "string",
      required: true,
      value: "DIR",
      help: "folder for model, log and checkpoint",
    },
    {
      name: "iterations",
      type: "integer",
      min: 1,
      max: 10_000_000,
      default: 10_000,
      help: "optimiser steps",
    },
    { name: "batch", type: "integer", min: 1, max: 256, default: 8, help: "patches a step" },
    {
      name: "patch",
      type: "integer",
      min: 16,
      max: 512,
      default: 48,
      help: "LR pixels a side of a patch",
    },
    {
      name: "candidates",
      type: "integer",
      min: 1,
      max: 64,
      default: 1,
      help: "places looked at for each patch; the one with most detail is taken",
    },
    {
      name: "start",
      type: "string",
      default: "interpolation",
      value: "S",
      help: "interpolation, random, or a model file of any scale to go on from",
    },
    {
      name: "rate",
      type: "number",
      min: 1e-7,
      max: 1,
      default: 5e-4,
      help: "largest learning rate",
    },
    {
      name: "seed",
      type: "integer",
      min: 0,
      max: 2147483647,
      default: 0,
      help: "seed of everything random",
    },
    { name: "half", type: "boolean", help: "store the weights as floats of 16 bits" },
    deviceOption,
    { name: "resume", type: "boolean", help: "go on from OUT/checkpoint.safetensors" },
  ],
  async run(ctx) {
    const { options } = ctx;
    const began = performance.now();
    const architecture = architectureNamed(options.arch as string)!;
    const config = await readConfig(architecture, options.config, options.scale as number);
    await ensureWritableDir(options.out);
    const source = await PatchSource.open(options.train, config.scale, options.patch);
    const { iterations, batch, patch, candidates, start, rate, seed } = options;
    const device = chosenDevice(options.device as DeviceChoice);
    const memory = memoryOn(device);
    const net = (await started(architecture, config, seed, start)).on(memory);
    const adam = pretrainOptimiser(net, memory);
    const run = { config, iterations, batch, patch, candidates, start, rate, seed };
    const identity = JSON.stringify(device === "cuda" ? { ...run, device } : run);
    const path = join(options.out, "checkpoint.safetensors");
    const state = options.resume ? await readCheckpoint(path, identity) : null;
    if (state) adam.restore(state.tensors, state.iteration);
    const from = state?.iteration ?? 0;
    const log = JsonLines.open(
      join(options.out, "log.jsonl"),
      state ? { stage: "train", iteration: from } : undefined,
    );
    log.write({
      type: "start",
      command: "spr2q train",
      seed,
      settings: {
        arch: options.arch,
        scale: config.scale,
        batch,
        patch,
        candidates,
        start,
        rate,
        iterations,
      },
    });
    let loss = Number.NaN;
    try {
      const events = pretrain(
        memory,
        net,
        source,
        adam,
        {
          iterations,
          batch,
          patch,
          candidates,
          rate,
          seed,
          signal: ctx.signal,
          saveEvery: 250,
          save: async (optimiser, iteration) => {
            await writeCheckpoint(path, {
              stage: "train",
              iteration,
              identity,
              tensors: optimiser.state(),
            });
            return { type: "checkpoint", stage: "train", iteration, file: path };
          },
        },
        from,
      );
      for await (const event of events) {
        log.write(event);
        if (event.type !== "step") continue;
        loss = event.loss;
        ctx.progress.update({
          label: "training",
          done: event.iteration,
          total: iterations,
          unit: "iterations",
          note: `loss ${loss.toFixed(5)}`,
        });
      }
      ctx.progress.finish();
      const model = join(options.out, "model.safetensors");
      await writeFileAtomic(
        model,
        saveFloat(
          net,
          { seed: `${seed}`, iterations: `${iterations}` },
          options.half ? "f16" : "f32",
        ),
      );
      const seconds = (performance.now() - began) / 1000;
      log.write({ type: "done", seconds, summary: { loss, model } });
      ctx.out(
        `${model}: loss ${loss.toFixed(5)} after ${iterations} iterations (${seconds.toFixed(0)} s)`,
      );
      ctx.result({ model, loss, iterations, seed, seconds });
    } finally {
      log.close();
    }
  },
});
