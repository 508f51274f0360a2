/** Full-precision training from scratch against HR images: mean L1, Adam, cosine rate. */
import { Graph, Var } from "../autograd.ts";
import { readable } from "../device.ts";
import { Spr2qError } from "../errors.ts";
import type { Architecture, NetworkConfig } from "../models/architecture.ts";
import { Network } from "../models/network.ts";
import type { Initial } from "../models/parameters.ts";
import { FloatSites } from "../models/sites.ts";
import { Router } from "../nn/routing.ts";
import { scheduleAt } from "../quant/recipes.ts";
import { generator } from "../random.ts";
import type { Memory } from "../tensor.ts";
import { Adam } from "./adam.ts";
import type { TrainEvent } from "./events.ts";
import type { PatchSource } from "./patches.ts";

export interface PretrainSettings {
  readonly iterations: number;
  readonly batch: number;
  readonly patch: number;
  /** Places looked at for each patch; the one with most detail is taken. */
  readonly candidates: number;
  readonly rate: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
  readonly saveEvery: number;
  readonly save: (adam: Adam, iteration: number) => Promise<TrainEvent>;
}

/** Steps over which the rate rises from zero. */
const WARM_UP = 100;
/** Steps whose mean loss one event reports. */
const REPORT_EVERY = 10;

/** A freshly initialised network, each tensor as its spec says, every leaf trainable. */
export function initialise<C extends NetworkConfig>(
  architecture: Architecture<C>,
  config: C,
  seed: number,
): Network<C> {
  const net = Network.empty(architecture, config);
  architecture.parameterSpecs(config).forEach((spec, i) => {
    fill(net.weights.get(spec.name)!, spec.initial, generator(seed, 0x1e1f, i));
  });
  for (const leaf of net.leaves().values()) leaf.requiresGrad = true;
  return net;
}

function fill({ data }: Var, initial: Initial, draw: () => number): void {
  for (let i = 0; i < data.length; i++) {
    switch (initial.kind) {
      case "constant":
        data[i] = initial.value;
        break;
      case "uniform":
        data[i] = (2 * draw() - 1) * initial.bound;
        break;
      case "normal":
        data[i] =
          initial.deviation * Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
        break;
      case "state-logs":
        data[i] = Math.log((i % initial.states) + 1);
        break;
      case "delta-bias": {
        // softplus^-1 of a step drawn log-uniformly from [1e-3, 1e-1].
        const step = Math.max(1e-4, Math.exp(Math.log(1e-3) + draw() * Math.log(100)));
        data[i] = step + Math.log(-Math.expm1(-step));
        break;
      }
    }
  }
}

/** Optimiser of a training run over all leaves. */
export function pretrainOptimiser(net: Network, memory?: Memory): Adam {
  const trainables = [...net.leaves()].map(([name, value]) => ({ name, value, rate: () => 1 }));
  return new Adam(trainables, { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 }, memory);
}

/** Trains `net` from iteration `from`; events as they come. */
export async function* pretrain(
  memory: Memory,
  net: Network,
  source: PatchSource,
  adam: Adam,
  settings: PretrainSettings,
  from = 0,
): AsyncGenerator<TrainEvent> {
  const { iterations, batch, patch, seed, candidates } = settings;
  yield { type: "stage", stage: "train", iterations };
  const began = performance.now();
  // Read where they are reported: on the GPU, a step waits for nothing.
  const losses = memory.floats(memory.take(REPORT_EVERY * 4), REPORT_EVERY);
  let counted = 0;
  for (let at = from; at < iterations; at++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (settings.signal?.aborted) {
      yield await settings.save(adam, at);
      throw new Spr2qError(
        "ERR_ABORTED",
        `Stopped after ${at} of ${iterations} iterations; the ` +
          "checkpoint is written, --resume goes on from it.",
        { cause: settings.signal.reason },
      );
    }
    const { low, high } = source.draw(batch, patch, seed, at, candidates);
    const graph = new Graph("recording", memory);
    const image = new Var(graph.input(low.data), low.shape);
    const target = graph.input(high.data);
    const router = new Router({ mode: "sampled", seed: seed + at, gradient: "straight-through" });
    const output = net.forward(graph, image, new FloatSites(), router);
    const loss = losses.subarray(counted, ++counted);
    const gradient = graph.floats(output.size);
    graph.run("l1Loss", output.data, target, loss, gradient, output.size);
    graph.seed(output, gradient);
    graph.backward();
    const rate =
      settings.rate * scheduleAt("cosine", at, iterations) * Math.min(1, (at + 1) / WARM_UP);
    adam.step(graph, rate);
    router.release();
    graph.dispose();
    const done = at + 1;
    if (done % REPORT_EVERY === 0 || done === iterations) {
      const secondsLeft =
        ((performance.now() - began) / 1000 / (done - from)) * (iterations - done);
      const sum = readable(losses)
        .subarray(0, counted)
        .reduce((total, one) => total + one, 0);
      const mean = sum / counted;
      if (!Number.isFinite(mean)) {
        throw new Spr2qError(
          "ERR_NATIVE",
          `Training diverged before iteration ${done}; lower --rate.`,
        );
      }
      yield {
        type: "step",
        stage: "train",
        iteration: done,
        iterations,
        loss: mean,
        pixel: mean,
        feature: 0,
        rate,
        secondsLeft,
      };
      counted = 0;
    }
    if (done % settings.saveEvery === 0 || done === iterations)
      yield await settings.save(adam, done);
  }
}
