/**
 * MLPs with ReLU in place of GELU, fitted to what they were: fc2 in closed form, then fc1 and fc2 by
 * Adam, so that the values between them are one-sided and bounded before anything is quantised.
 */
import { Graph, Var } from "../autograd.ts";
import { type F32, native } from "../binding.ts";
import { expected } from "../errors.ts";
import { halfToFloat32, toFloat16 } from "../io/host_tensor.ts";
import { solve } from "../linalg/cholesky.ts";
import { matrix } from "../linalg/matrix.ts";
import type { Network } from "../models/network.ts";
import { FloatSites } from "../models/sites.ts";
import { Router } from "../nn/routing.ts";
import * as ops from "../ops.ts";
import { quantile } from "../quant/ranges.ts";
import { relu } from "../quant/relu.ts";
import { generator } from "../random.ts";
import { floats, type Memory } from "../tensor.ts";
import { Adam } from "./adam.ts";
import type { MethodStage, StepResult } from "./method.ts";

/** Share of the trace that is added to the normal equations' diagonal. */
const RIDGE = 1e-7;
/** Adam's rate. */
const RATE = 4e-5;

/** What flows through one layer's MLP in the original network. */
export interface MlpCache {
  /** fc1's input, fc2's input and fc2's output, by token. */
  readonly input: F32;
  readonly middle: F32;
  readonly output: F32;
}

/** Runs `net` in float and hands over each layer's MLP values while they live. */
export function watchMlps(
  memory: Memory,
  net: Network,
  patches: Var,
  visit: (prefix: string, cache: MlpCache) => void,
): void {
  let input: F32 | null = null;
  class Watching extends FloatSites {
    override linear(...[g, key, x, weight, bias]: Parameters<FloatSites["linear"]>): Var {
      const y = super.linear(g, key, x, weight, bias);
      if (key.endsWith("mlp.fc1")) input = Float32Array.from(x.data);
      if (key.endsWith("mlp.fc2"))
        visit(key.slice(0, -"mlp.fc2".length), { input: input!, middle: x.data, output: y.data });
      return y;
    }
  }
  const graph = new Graph("running", memory);
  net.forward(graph, patches, new Watching(), new Router({ mode: "sampled", seed: 0 }));
  graph.dispose();
}

/** Upper bound of what lies between fc1 and fc2: a quantile of its positive values. */
export function positiveQuantile(middle: F32, share: number): number {
  const positive = middle.filter((value) => value > 0).sort();
  return positive.length > 0 ? quantile(positive, share) : 1;
}

/**
 * Least squares of fc2 on min(relu(fc1 x), most): the weight and bias with which the MLP's outputs
 * come closest to `output`. Writes them into `net`.
 */
export function refitSecond(net: Network, prefix: string, cache: MlpCache, most: number): void {
  const [first, bias] = ["weight", "bias"].map((name) => net.get(`${prefix}mlp.fc1.${name}`));
  const [second, shift] = ["weight", "bias"].map((name) => net.get(`${prefix}mlp.fc2.${name}`));
  const [hidden, inputs] = first.shape;
  const rows = cache.input.length / inputs;
  const out = second.shape[0];
  const quiet = new Graph("running");
  const x = new Var(cache.input, [rows, inputs]);
  const active = relu(quiet, ops.linear(quiet, x, first, bias), most).data;
  // A last column of ones stands for the bias.
  const side = hidden + 1;
  const values = floats(rows * side);
  for (let r = 0; r < rows; r++) {
    values.set(active.subarray(r * hidden, (r + 1) * hidden), r * side);
    values[r * side + hidden] = 1;
  }
  quiet.dispose();
  const [gram, cross] = [floats(side * side), floats(out * side)];
  native().linearGradWeight(values, values, gram, null, rows, side, side);
  native().linearGradWeight(cache.output, values, cross, null, rows, side, out);
  const normal = matrix(side, side, gram);
  let trace = 0;
  for (let i = 0; i < side; i++) trace += gram[i * side + i];
  for (let i = 0; i < side; i++) normal.data[i * side + i] += (RIDGE * trace) / side + 1e-9;
  const right = matrix(side, out);
  for (let o = 0; o < out; o++)
    for (let i = 0; i < side; i++) right.data[i * out + o] = cross[o * side + i];
  const fitted = solve(normal, right).data;
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < hidden; i++) second.data[o * hidden + i] = fitted[i * out + o];
    shift.data[o] = fitted[hidden * out + o];
  }
}

export interface MlpSettings {
  readonly memory: Memory;
  /** The network whose MLPs are matched, and the one whose are trained. */
  readonly original: Network;
  readonly net: Network;
  readonly patches: Var;
  readonly batch: number;
  readonly iterations: number;
  readonly seed: number;
  /** Importance of the output channels of a layer. */
  readonly importance: (layer: number) => Float64Array;
  /** Upper bound between fc1 and fc2 of each layer. */
  readonly most: ReadonlyMap<string, number>;
}

interface OpenMlp {
  readonly layer: number;
  readonly cache: MlpCache;
  readonly weights: Float64Array;
  readonly adam: Adam;
}

/** fc1 and fc2 of one layer after another. */
export class MlpStage implements MethodStage {
  readonly name = "mlp";
  readonly iterations: number;
  readonly #settings: MlpSettings;
  readonly #steps: number;
  #open: OpenMlp | null = null;

  constructor(settings: MlpSettings) {
    this.#settings = settings;
    this.#steps = Math.ceil(settings.iterations / settings.net.layerCount);
    this.iterations = this.#steps * settings.net.layerCount;
  }

  step(at: number): StepResult {
    const [layer, inner] = [Math.floor(at / this.#steps), at % this.#steps];
    if (this.#open?.layer !== layer) this.#open = this.#enter(layer);
    const { memory, net, most, seed, batch, patches } = this.#settings;
    const { cache, weights, adam } = this.#open;
    const prefix = net.layerPrefixes[layer];
    const [fc1, b1, fc2, b2] = this.#parameters(prefix);
    const draw = generator(seed, at, 0x3713);
    const [inputs, out] = [fc1.shape[1], fc2.shape[0]];
    const tokens = cache.input.length / inputs / patches.shape[0];
    const graph = new Graph("recording", memory);
    const [x, wanted] = [inputs, out].map((side) => graph.floats(batch * tokens * side));
    for (let b = 0; b < batch; b++) {
      const from = Math.floor(draw() * patches.shape[0]) * tokens;
      x.set(cache.input.subarray(from * inputs, (from + tokens) * inputs), b * tokens * inputs);
      wanted.set(cache.output.subarray(from * out, (from + tokens) * out), b * tokens * out);
    }
    const hidden = ops.linear(graph, new Var(x, [batch * tokens, inputs]), fc1, b1);
    let loss = 0;
    for (const [bound, share] of [
      [Number.POSITIVE_INFINITY, 0.1],
      [most.get(prefix)!, 0.2],
    ]) {
      const y = ops.linear(graph, relu(graph, hidden, bound), fc2, b2);
      const gradient = graph.floats(y.size);
      y.data.forEach((value, i) => {
        const weight = (share * weights[i % out]) / y.size;
        loss += weight * (value - wanted[i]) ** 2;
        gradient[i] = 2 * weight * (value - wanted[i]);
      });
      graph.seed(y, gradient);
    }
    graph.backward();
    const rate = 0.5 * (1 + Math.cos((Math.PI * inner) / this.#steps));
    adam.step(new Graph("running", memory), rate);
    graph.dispose();
    if (inner === this.#steps - 1) this.#close();
    return { loss, pixel: loss, feature: 0, rate };
  }

  /** Biases are stored in half precision: from here on the network has them so. */
  end(): void {
    const { net } = this.#settings;
    for (const prefix of net.layerPrefixes)
      for (const name of ["fc1", "fc2"]) {
        const { data } = net.get(`${prefix}mlp.${name}.bias`);
        data.set(halfToFloat32(toFloat16(data)));
      }
  }

  state(): Map<string, F32> {
    const { net } = this.#settings;
    const tensors = new Map<string, F32>();
    for (const prefix of net.layerPrefixes)
      this.#parameters(prefix).forEach(({ data }, i) => {
        tensors.set(`${prefix}${i}`, data);
      });
    for (const [key, data] of this.#open?.adam.state() ?? []) tensors.set(`adam.${key}`, data);
    return tensors;
  }

  restore(state: ReadonlyMap<string, Float32Array>, done: number): void {
    this.#close();
    for (const [name, target] of this.state()) {
      const found = state.get(name);
      if (found?.length !== target.length) {
        const got = found ? `${found.length}` : "none";
        throw expected("ERR_RESUME", `checkpoint, "${name}"`, `${target.length} values`, got);
      }
      target.set(found);
    }
    const inner = done % this.#steps;
    if (this.#steps === 0 || inner === 0) return;
    this.#open = this.#enter(Math.floor(done / this.#steps));
    const own = [...state].filter(([key]) => key.startsWith("adam."));
    this.#open.adam.restore(new Map(own.map(([key, data]) => [key.slice(5), data])), inner);
  }

  #parameters(prefix: string): Var[] {
    const { net } = this.#settings;
    return ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"].map((name) =>
      net.get(`${prefix}mlp.${name}`),
    );
  }

  #enter(layer: number): OpenMlp {
    const { memory, original, net, patches, importance } = this.#settings;
    const wanted = net.layerPrefixes[layer];
    let cache: MlpCache | null = null;
    watchMlps(memory, original, patches, (prefix, { input, output }) => {
      if (prefix !== wanted) return;
      cache = { input, middle: new Float32Array(0), output: Float32Array.from(output) };
    });
    const parameters = this.#parameters(wanted);
    for (const value of parameters) value.requiresGrad = true;
    const rate = (): number => RATE;
    const adam = new Adam(
      parameters.map((value, i) => ({ name: `${wanted}${i}`, value, rate })),
      { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
    );
    return { layer, cache: cache!, weights: importance(layer), adam };
  }

  #close(): void {
    for (const { value } of this.#open?.adam.trainables ?? []) value.requiresGrad = false;
    this.#open = null;
  }
}
