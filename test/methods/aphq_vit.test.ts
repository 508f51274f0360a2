/** One-sided MLPs and the perturbation Hessian of APHQ-ViT. */
import { expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { copyOf } from "../../lib/quant/conditioning.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { relu } from "../../lib/quant/relu.ts";
import { Memory } from "../../lib/tensor.ts";
import { type MlpCache, positiveQuantile, refitSecond, watchMlps } from "../../lib/train/mlp.ts";
import { perturbationHessian } from "../../lib/train/perturbation.ts";
import { random } from "../ops/harness.ts";
import { pictures, tinySwin } from "../tiny_net.ts";

test("relu and its clipping pass the gradient strictly inside", () => {
  const x = new Var(Float32Array.of(-1, 0, 0.5, 2, 3), [5], true);
  const graph = new Graph("recording", new Memory());
  const y = relu(graph, x, 2);
  expect([...y.data]).toEqual([0, 0, 0.5, 2, 2]);
  graph.seed(y, Float32Array.of(1, 2, 3, 4, 5));
  graph.backward();
  expect([...x.grad!]).toEqual([0, 0, 3, 0, 0]);
});

test("the closed form of fc2 is the least squares of its equations: no small change is better", () => {
  const net = tinySwin();
  const caches = new Map<string, MlpCache>();
  watchMlps(new Memory(), net, pictures(2, 16, 3), (prefix, { input, middle, output }) => {
    caches.set(prefix, {
      input,
      middle: Float32Array.from(middle),
      output: Float32Array.from(output),
    });
  });
  expect(caches.size).toBe(3);
  for (const [prefix, cache] of caches) {
    const fitted = copyOf(net);
    const most = positiveQuantile(cache.middle, 0.99);
    const positive = cache.middle.filter((v) => v > 0);
    expect(positive.filter((v) => v > most).length / positive.length).toBeLessThan(0.012);
    const error = (of: typeof net): number => {
      const get = (name: string): Float32Array => of.get(`${prefix}mlp.${name}`).data;
      const [w1, b1, w2, b2] = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"].map(get);
      const [hidden, out] = [b1.length, b2.length];
      const cols = w1.length / hidden;
      let total = 0;
      for (let r = 0; r < cache.input.length / cols; r++) {
        const middle = Array.from({ length: hidden }, (_, h) => {
          let sum = b1[h];
          for (let c = 0; c < cols; c++) sum += w1[h * cols + c] * cache.input[r * cols + c];
          return Math.min(Math.max(sum, 0), most);
        });
        for (let o = 0; o < out; o++) {
          const y = middle.reduce((sum, v, h) => sum + w2[o * hidden + h] * v, b2[o]);
          total += (y - cache.output[r * out + o]) ** 2;
        }
      }
      return total;
    };
    const swapped = error(net);
    refitSecond(fitted, prefix, cache, most);
    const best = error(fitted);
    expect(best).toBeLessThan(0.5 * swapped);
    for (let trial = 0; trial < 4; trial++) {
      const near = copyOf(fitted);
      const { data } = near.get(`${prefix}mlp.fc2.${trial % 2 ? "bias" : "weight"}`);
      random(data.length, trial, -0.01, 0.01).forEach((noise, i) => {
        data[i] += noise;
      });
      expect(error(near)).toBeGreaterThan(best);
    }
  }
});

test("the Hessian's channels stand to each other as differences of the loss say", () => {
  const net = tinySwin();
  const patches = pictures(1, 8, 3);
  const layer = 2;
  const channels = net.config.channels;
  const h = perturbationHessian(new Memory(), net, patches, layer, 0);
  expect(h.reduce((a, b) => a + b) / channels).toBeCloseTo(1, 6);
  const memory = new Memory();
  const run = (change: (z: Float32Array) => Float32Array): Float32Array => {
    const graph = new Graph("running", memory);
    const watch = (_: Graph, index: number, z: Var): Var =>
      index === layer ? new Var(change(z.data as Float32Array) as Var["data"], z.shape) : z;
    const trace = { layers: [], groups: [], watch };
    const router = new Router({ mode: "sampled", seed: 0 });
    const { data } = net.forward(graph, patches, new FloatSites(), router, trace);
    const copy = Float32Array.from(data);
    graph.dispose();
    return copy;
  };
  const target = run((z) => z);
  let rms = 0;
  run((z) => {
    rms = Math.sqrt(z.reduce((sum, v) => sum + v * v, 0) / z.length);
    return z;
  });
  const step = 0.02 * rms;
  const lossAt = (side: number, element: number, delta: number): number => {
    const output = run((z) =>
      Float32Array.from(z, (v, i) => v + side * step + (i === element ? delta : 0)),
    );
    return output.reduce((sum, v, i) => sum + (v - target[i]) ** 2, 0);
  };
  const slope = (side: number, element: number): number =>
    lossAt(side, element, step) - lossAt(side, element, -step);
  const sum = (channel: number): number => {
    let total = 0;
    for (let t = 0; t < 64; t += 4) {
      const element = t * channels + channel;
      total += Math.abs(slope(1, element) - slope(-1, element));
    }
    return total;
  };
  // Of the extremes: sixteen of the 64 tokens are enough to tell them apart.
  const order = [...h.keys()].sort((a, b) => h[b] - h[a]);
  const [most, least] = [order[0], order[channels - 1]];
  const ratio = sum(most) / sum(least);
  expect(ratio).toBeGreaterThan(1);
  expect(ratio / (h[most] / h[least])).toBeGreaterThan(0.5);
  expect(ratio / (h[most] / h[least])).toBeLessThan(2);
});
