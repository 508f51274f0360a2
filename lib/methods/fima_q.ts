/**
 * FIMA-Q (CVPR 2025): every block fitted to the teacher's output in the curvature of the final error
 * (DPLR-Fisher, lib/train/fisher.ts): weights rounded by AdaRound, activation bounds trained, inputs
 * mixed with the teacher's (QDrop). Inputs that come from a LayerNorm are evened out by channel and
 * folded into the norm first. Ranges: weights by output channel, activations one a tensor, also for
 * q, k, v and probabilities (the paper: by head), from DOBI (the paper: a search by the error of the
 * layer's output). QDrop inside of a block is left out: codes are multiplied there.
 */
import type { Network } from "../models/network.ts";
import { copyOf } from "../quant/conditioning.ts";
import { type InputMoments, inputMoments } from "../quant/covariance.ts";
import { rescaleNorm } from "../quant/folding.ts";
import { dobi } from "../quant/ranges.ts";
import { RECIPES } from "../quant/recipes.ts";
import { calibratedStudent } from "../quant/student.ts";
import { Dplr, outputSensitivity } from "../train/fisher.ts";
import type { Method } from "../train/method.ts";
import { type Importance, reconstruction } from "./reconstruction.ts";

/** Snapshots of the curvature in every block. */
const SNAPSHOTS = 5;

/** Modules that read a norm of a Swin layer. */
const READERS = {
  norm1: ["attn.qkv.q", "attn.qkv.k", "attn.qkv.v"],
  norm2: ["mlp.fc1"],
} as const;

/** Gives every channel of a norm's output the same range, centred on 0. */
export function evenOutNorms(net: Network, moments: ReadonlyMap<string, InputMoments>): void {
  for (const prefix of net.layerPrefixes) {
    for (const [norm, readers] of Object.entries(READERS)) {
      const { low, high } = moments.get(prefix + readers[0])!;
      const widths = high.map((top, c) => Math.max(top - low[c], 1e-5));
      const mean = widths.reduce((sum, width) => sum + width, 0) / widths.length;
      const offsets = high.map((top, c) => -(top + low[c]) / 2);
      const consumers = readers.map((name) => prefix + name);
      rescaleNorm(
        net,
        prefix + norm,
        consumers,
        widths.map((width) => width / mean),
        offsets,
      );
    }
  }
}

export const FIMA_Q: Method = {
  name: "fima-q",
  title: "FIMA-Q (CVPR 2025): blocks fitted in a Fisher metric of low rank, AdaRound, QDrop",
  architectures: ["swinir"],
  scope: "table4",
  recipe: { ...RECIPES.released, iterations: 4000, osrcIterations: 0, batch: 16 },
  recipeName: "fima-q",
  takesLeads: false,
  policy: (policy) => ({ ...policy, leads: { ...policy.leads, rowBounds: true } }),
  prepare(context) {
    const { memory, teacher, policy, seed, calibration } = context;
    const net = copyOf(teacher);
    evenOutNorms(net, inputMoments(memory, teacher, policy, calibration(), seed));
    const student = calibratedStudent(memory, net, policy, calibration(), seed, () => dobi);
    const { channels } = net.config;
    const importance: Importance = (layer, patches, steps) => {
      const dplr = new Dplr(channels);
      const every = Math.max(1, Math.floor(steps / SNAPSHOTS));
      return {
        before: (at) => {
          if (at % every === 0 && at / every < SNAPSHOTS)
            dplr.add(outputSensitivity(memory, teacher, student, patches, layer, seed));
        },
        loss: (z, y, images, gradient) => dplr.loss(z, y, images, gradient),
        state: () => dplr.state(),
        restore: (state) => dplr.restore(state),
      };
    };
    return { student, stages: [reconstruction(context, student, importance)] };
  },
};
