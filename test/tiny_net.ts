/** A small random network, made fresh for each test file: every op of the family, in milliseconds. */
import type { Model } from "../lib/infer/model.ts";
import { Var } from "../lib/autograd.ts";
import type { MambaIRv2 } from "../lib/models/mambairv2.ts";
import type { MambaConfig } from "../lib/models/parameters.ts";
import { FloatSites } from "../lib/models/sites.ts";
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

/** A network of TINY with lively weights: biases and scales away from their initial zeros. */
export function tinyNet(seed = 1): MambaIRv2 {
  const net = initialise(TINY, seed);
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
export function asModel(net: MambaIRv2): Model {
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
