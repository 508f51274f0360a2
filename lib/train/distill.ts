/** One distillation step: teacher forward, student forward on the same routes, losses, backward. */
import { Graph, Var } from "../autograd.ts";
import { readable } from "../device.ts";
import { FloatSites } from "../models/sites.ts";
import type { Network, Trace } from "../models/network.ts";
import { Router } from "../nn/routing.ts";
import type { Student } from "../quant/student.ts";
import type { Memory } from "../tensor.ts";

/** Losses of a step: mean |student - teacher| of pixels, mean relative squared feature error. */
export interface Losses {
  readonly loss: number;
  readonly pixel: number;
  readonly feature: number;
}

/** What a step keeps for each token of its batch, spare blocks included (165 KB are in use). */
const TOKEN_BYTES = 4e9 / 12_000;

/**
 * Losses on LR patches `low` (batch, h, w, 3). With `learn`, gradients end up in the student's
 * leaves. `seed` keys the routing noise, which teacher and student share. Layers of batches of more
 * than `keptTokens` tokens are made again in backward, to the same bits.
 */
export function distill(
  memory: Memory,
  teacher: Network,
  student: Student,
  low: Var,
  featureWeight: number,
  seed: number,
  learn: boolean,
  keptTokens = memory.tapeBytes / TOKEN_BYTES,
): Losses {
  const recompute = low.size / 3 > keptTokens;
  const graph = new Graph(learn ? "recording" : "running", memory, recompute);
  const image = new Var(graph.input(low.data), low.shape);
  const quiet = new Graph("running", memory);
  const wanted: Trace = { layers: [], groups: [] };
  const routes = new Router({ mode: "sampled", seed });
  const target = teacher.forward(quiet, image, new FloatSites(), routes, wanted);

  student.sites.samples = low.shape[0];
  const got: Trace = { layers: [], groups: [] };
  const router = new Router({ replay: routes.classes });
  const output = student.net.forward(graph, image, student.sites, router, got);
  const count = featureWeight > 0 ? got.layers.length : 0;
  const parts = graph.floats(1 + count);
  const gradient = graph.floats(output.size);
  const [size, first] = [output.size, parts.subarray(0, 1)];
  graph.run("l1Loss", output.data, target.data, first, gradient, size);
  if (learn) graph.seed(output, gradient);
  if (count > 0) {
    got.layers.forEach((layer, i) => {
      const part = graph.floats(layer.size);
      graph.run(
        "featureLoss",
        layer.data,
        wanted.layers[i].data,
        parts.subarray(1 + i, 2 + i),
        part,
        layer.size,
        low.shape[0],
      );
      if (!learn) return;
      graph.run("scale", part, part, layer.size, featureWeight / count);
      graph.seed(layer, part);
    });
  }
  quiet.dispose();
  if (learn) graph.backward();
  const [pixel, ...features] = readable(parts);
  const feature = features.reduce((total, part) => total + part / count, 0);
  routes.release();
  graph.dispose();
  return { loss: pixel + featureWeight * feature, pixel, feature };
}
