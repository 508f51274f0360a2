/** Small random networks, made fresh for each test file: every op of a family, in milliseconds. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Model } from "../lib/infer/model.ts";
import { Var } from "../lib/autograd.ts";
import { encodePng, fromRgbFloat } from "../lib/io/png.ts";
import { MAMBAIRV2 } from "../lib/models/mambairv2.ts";
import type { MambaConfig } from "../lib/models/mambairv2_parameters.ts";
import type { Network } from "../lib/models/network.ts";
import { FloatSites } from "../lib/models/sites.ts";
import { SWINIR, type SwinConfig } from "../lib/models/swinir.ts";
import { initialise } from "../lib/train/pretrain.ts";
import { random } from "./ops/harness.ts";

export const TINY: MambaConfig = {
  scale: 2,
  channels: 16,
  depths: [2, 1],
  heads: 2,
  window: 8,
  hidden: 16,
  states: 4,
  deltaRank: 1,
  promptRank: 8,
  classes: 16,
  routerHidden: 8,
};

/** A SwinIR of head width 10, windows of 4, two groups. */
export const TINY_SWIN: SwinConfig = {
  scale: 2,
  channels: 20,
  depths: [2, 1],
  heads: 2,
  window: 4,
  hidden: 28,
};

/** A MambaIRv2 of TINY with lively weights: biases and scales away from their initial zeros. */
export const tinyNet = (seed = 1): Network => enliven(initialise(MAMBAIRV2, TINY, seed), seed);

/** A SwinIR of TINY_SWIN with lively weights. */
export const tinySwin = (seed = 1): Network => enliven(initialise(SWINIR, TINY_SWIN, seed), seed);

function enliven(net: Network, seed: number): Network {
  let i = 0;
  for (const [name, weight] of net.weights) {
    weight.requiresGrad = false;
    const noise = random(weight.size, seed * 1000 + i++, -0.2, 0.2);
    const gain = /weight$|table/.test(name) && !/norm/.test(name) ? 1 : 0.5;
    for (let k = 0; k < noise.length; k++) weight.data[k] += gain * noise[k];
  }
  for (const leaf of net.leaves().values()) leaf.requiresGrad = false;
  return net;
}

/** A smooth random picture batch (batch, side, side, 3) in 0..1. */
export function pictures(batch: number, side: number, seed: number): Var {
  const data = new Float32Array(batch * side * side * 3);
  const phase = random(batch * 9, seed, 0, 6);
  for (let b = 0; b < batch; b++) {
    for (let i = 0; i < side * side; i++) {
      const [x, y] = [i % side, Math.floor(i / side)];
      for (let c = 0; c < 3; c++) {
        const k = b * 9 + c * 3;
        data[(b * side * side + i) * 3 + c] =
          0.5 +
          0.25 * Math.sin(x * 0.4 + phase[k]) +
          0.2 * Math.sin(y * 0.7 + x * 0.1 + phase[k + 1]);
      }
    }
  }
  return new Var(data, [batch, side, side, 3]);
}

/** The network as openModel would give it. */
export function asModel(net: Network): Model {
  return {
    path: "tiny",
    net,
    sites: new FloatSites(),
    quantised: null,
    metadata: {},
    sha256: "0".repeat(64),
    stored: new Map(),
  };
}

/** Makes `folder` with `count` smooth PNGs of `side` pixels to train on. */
export async function writePictures(folder: string, count: number, side: number): Promise<void> {
  await mkdir(folder);
  for (let i = 0; i < count; i++) {
    const image = fromRgbFloat(pictures(1, side, 20 + i).data, side, side, 8);
    await writeFile(join(folder, `${i}.png`), encodePng(image));
  }
}
