/** SwinIR-light against the official network, and against an independent implementation. */
import { expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import type { F32 } from "../../lib/binding.ts";
import type { HostTensor } from "../../lib/io/host_tensor.ts";
import { Network, type Trace } from "../../lib/models/network.ts";
import { networkFrom } from "../../lib/models/registry.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { SWINIR } from "../../lib/models/swinir.ts";
import { Router } from "../../lib/nn/routing.ts";
import { Memory } from "../../lib/tensor.ts";
import { hasTestData } from "../data.ts";
import { relativeError } from "../ops/harness.ts";
import {
  feature,
  gradientError,
  largestDifference,
  loadNetwork,
  readGolden,
  seedGoldenLoss,
  toChannelsLast,
} from "./golden.ts";

const FOLDER = "golden/swinir-light-x4";

function run(net: Network, input: Var): { output: F32; trace: Trace } {
  const trace: Trace = { layers: [], groups: [] };
  const graph = new Graph("running", new Memory());
  const { data } = net.forward(graph, input, new FloatSites(), new Router({}), trace);
  return { output: data, trace };
}

test.skipIf(!hasTestData)("x4 output and features equal the official ones", () => {
  const g = readGolden(`${FOLDER}/forward.safetensors`);
  const { output, trace } = run(loadNetwork(`${FOLDER}/checkpoint.pth`), g.input);
  expect(largestDifference(output, g.output)).toBeLessThan(1e-4);
  let compared = 0;
  for (const [name, { data }] of g.tensors) {
    const mine = feature(trace, 6, name);
    if (!mine) continue;
    compared++;
    expect(relativeError(mine.data, data), name).toBeLessThan(1e-4);
  }
  expect(compared).toBe(3);
});

test.skipIf(!hasTestData)("x4 gradients of all 330 parameters equal the official ones", () => {
  const g = readGolden(`${FOLDER}/backward.safetensors`);
  const net = loadNetwork(`${FOLDER}/checkpoint.pth`);
  for (const leaf of net.leaves().values()) leaf.requiresGrad = true;
  const graph = new Graph("recording", new Memory());
  const trace: Trace = { layers: [], groups: [] };
  const output = net.forward(graph, g.input, new FloatSites(), new Router({}), trace);
  expect(largestDifference(output.data, g.output)).toBeLessThan(1e-4);
  seedGoldenLoss(graph, g, output, trace);
  graph.backward();
  expect(net.weights.size).toBe(330);
  for (const name of net.weights.keys()) {
    const { norm, head } = gradientError(net, g, name);
    expect(norm, name).toBeLessThan(1e-3);
    expect(head, name).toBeLessThan(1e-3);
  }
  graph.dispose();
});

/** Value i of tensor k in -0.5 ... 0.5, by the integer hash that the specification gives. */
function hashed(k: number, i: number): number {
  let h = (Math.imul(k + 1, 0x9e3779b1) ^ Math.imul(i + 1, 0x85ebca77)) >>> 0;
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 0) / 2 ** 32 - 0.5;
}

/** SwinIR-light of the self-test: every value from its tensor's number and place. */
function hashedNetwork(scale: number): Network {
  const config = SWINIR.lightConfig(scale);
  const net = Network.empty(SWINIR, config);
  SWINIR.parameterSpecs(config).forEach(({ name, shape }, k) => {
    const { data } = net.weights.get(name)!;
    const fan = shape.slice(1).reduce((a, b) => a * b, 1);
    const gain = 2 * Math.sqrt(1.5 / fan) * (name === "upsample.0.weight" ? 0.1 : 1);
    for (let i = 0; i < data.length; i++) {
      const u = hashed(k, i);
      if (/norm.*\.weight$/.test(name)) data[i] = 1 + 0.4 * u;
      else if (name.endsWith(".bias")) data[i] = 0.2 * u;
      else if (name.endsWith("table")) data[i] = u;
      else data[i] = gain * u;
    }
  });
  return net;
}

test.each([
  [2, 0.42576926, 0.07883284, [0.5147733, 0.5331012, 0.4197866]],
  [4, 0.44315745, 0.07466123, [0.5147733, 0.3810874, 0.5030902]],
])("with hashed weights the x%i network gives the self-test's values", (scale, mean, std, at) => {
  const shape = [1, 3, 20, 28];
  const image = Float32Array.from({ length: 3 * 20 * 28 }, (_, i) => hashed(1_000_000, i) + 0.5);
  const input = new Var(toChannelsLast(image, shape), [1, 20, 28, 3]);
  const { output, trace } = run(hashedNetwork(scale), input);
  expect(trace.layers[0].data[0]).toBeCloseTo(-0.565864, 5);
  expect(trace.layers[1].data[5 * 60 + 7]).toBeCloseTo(-2.489962, 5);
  const total = output.reduce((sum, value) => sum + value, 0) / output.length;
  const variance = output.reduce((sum, value) => sum + (value - total) ** 2, 0) / output.length;
  expect(total).toBeCloseTo(mean, 6);
  expect(Math.sqrt(variance)).toBeCloseTo(std, 6);
  const width = 28 * scale;
  const pixel = (c: number, y: number, x: number): number => output[(y * width + x) * 3 + c];
  expect(pixel(0, 0, 0)).toBeCloseTo(at[0], 5);
  expect(pixel(1, 17, 23)).toBeCloseTo(at[1], 5);
  expect(pixel(2, 20 * scale - 1, width - 1)).toBeCloseTo(at[2], 5);
});

/** A small network's tensors as a checkpoint holds them. */
function tensorsOf(net: Network): Map<string, HostTensor> {
  const tensors = new Map<string, HostTensor>();
  for (const [name, { shape, data }] of net.weights) {
    tensors.set(name, { shape, dtype: "f32", data: Float32Array.from(data) });
  }
  return tensors;
}

const tiny = { scale: 3, channels: 12, depths: [2, 1], heads: 3, window: 4, hidden: 20 };

test("configuration and scale are read from a checkpoint's shapes", () => {
  const net = networkFrom(tensorsOf(Network.empty(SWINIR, tiny)), "tiny");
  expect(net.architecture).toBe(SWINIR);
  expect(net.config).toEqual(tiny);
  expect(net.layerCount).toBe(3);
});

test("masks and position indices in a checkpoint are accepted, other extra tensors are not", () => {
  const tensors = tensorsOf(Network.empty(SWINIR, tiny));
  const block = "layers.0.residual_group.blocks.1.";
  const buffer: HostTensor = { shape: [2], dtype: "i64", data: new BigInt64Array(2) };
  tensors.set(`${block}attn.relative_position_index`, buffer);
  tensors.set(`${block}attn_mask`, { shape: [1], dtype: "f32", data: new Float32Array(1) });
  expect(networkFrom(tensors, "tiny").weights.has(`${block}attn_mask`)).toBe(false);
  tensors.set(`${block}attn.extra`, buffer);
  expect(() => networkFrom(tensors, "tiny")).toThrow(/unexpected tensor ".*attn\.extra"/);
});

test("a missing tensor is named with its shape, a foreign file refused with ERR_ARCHITECTURE", () => {
  const tensors = tensorsOf(Network.empty(SWINIR, tiny));
  tensors.delete("layers.1.residual_group.blocks.0.mlp.fc2.weight");
  expect(() => networkFrom(tensors, "tiny")).toThrow(/mlp\.fc2\.weight" is missing.*\(12, 20\)/);
  const foreign = new Map([...tensors].map(([name, tensor]) => [`net.${name}`, tensor]));
  expect(() => networkFrom(foreign, "tiny")).toThrow(
    expect.objectContaining({ code: "ERR_ARCHITECTURE" }),
  );
});

test("sizes that no window or head fits are refused by name", () => {
  const file = (sizes: object): Map<string, HostTensor> =>
    tensorsOf(Network.empty(SWINIR, { ...tiny, ...sizes }));
  for (const sizes of [{ window: 3 }, { heads: 5 }]) {
    const opened = (): Network => networkFrom(file(sizes), "odd");
    expect(opened).toThrow(/odd: expected channels divisible by heads, an even window, got \{/);
    expect(opened).toThrow(expect.objectContaining({ code: "ERR_CHECKPOINT" }));
  }
});

test("an image too small to be reflected to a window is refused with ERR_SHAPE", () => {
  const net = Network.empty(SWINIR, tiny);
  const image = (side: number): Var =>
    new Var(new Float32Array(side * side * 3), [1, side, side, 3]);
  expect(() => run(net, image(2))).toThrow(expect.objectContaining({ code: "ERR_SHAPE" }));
  expect(run(net, image(3)).output.length).toBe(9 * 9 * 3);
});
