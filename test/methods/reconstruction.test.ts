/** AdaRound, the DPLR-Fisher metric, and what block reconstruction leaves behind. */
import { expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { inverse } from "../../lib/linalg/cholesky.ts";
import { type Matrix, matrix, product, transposed } from "../../lib/linalg/matrix.ts";
import { evenOutNorms } from "../../lib/methods/fima_q.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { copyOf } from "../../lib/quant/conditioning.ts";
import { inputMoments } from "../../lib/quant/covariance.ts";
import { quantize } from "../../lib/quant/codes.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { calibratedStudent } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { SoftRounding } from "../../lib/train/adaround.ts";
import { Dplr, outputSensitivity } from "../../lib/train/fisher.ts";
import { random } from "../ops/harness.ts";
import { pictures, tinySwin } from "../tiny_net.ts";

const rowBounds = (rows: number, bits: number) => ({
  lower: new Var(random(rows, 1, -1.2, -0.8), [rows]),
  upper: new Var(random(rows, 2, 0.7, 1.1), [rows]),
  granularity: "row" as const,
  bits,
});

test("soft rounding starts at the weight and its gradient is that of differences", () => {
  const [rows, cols, bits] = [3, 7, 2];
  const weight = new Var(random(rows * cols, 3, -0.75, 0.65), [rows, cols]);
  const rounding = new SoftRounding(weight, rowBounds(rows, bits));
  const graph = new Graph("recording", new Memory());
  const soft = rounding.soft(graph);
  soft.data.forEach((value, i) => {
    expect(value).toBeCloseTo(weight.data[i], 3);
  });
  const pull = random(rows * cols, 4);
  rounding.weight = 0.05;
  rounding.power = 4;
  const again = rounding.soft(graph);
  graph.seed(again, pull);
  graph.backward();
  const loss = (): number => {
    const quiet = new Graph("running", new Memory());
    const values = rounding.soft(quiet).data;
    const total = values.reduce((sum, v, i) => sum + v * pull[i], 0) + rounding.penalty();
    quiet.dispose();
    return total;
  };
  const { alpha } = rounding;
  for (let i = 0; i < alpha.size; i += 2) {
    const kept = alpha.data[i];
    alpha.data[i] = kept + 0.01;
    const up = loss();
    alpha.data[i] = kept - 0.01;
    const down = loss();
    alpha.data[i] = kept;
    expect(alpha.grad![i]).toBeCloseTo((up - down) / 0.02, 3);
  }
});

test("a hardened weight is on its grid, next to the original, and codes to itself", () => {
  const [rows, cols, bits] = [4, 9, 2];
  const weight = new Var(random(rows * cols, 5, -1.1, 1), [rows, cols]);
  const bounds = rowBounds(rows, bits);
  const before = Float32Array.from(weight.data);
  const rounding = new SoftRounding(weight, bounds);
  // Some elements decide against the nearest code.
  for (let i = 0; i < weight.size; i += 3) rounding.alpha.data[i] *= -1;
  rounding.harden(weight);
  const graph = new Graph("running", new Memory());
  const codes = quantize(graph, weight, bounds);
  const values = codes.dequantise(graph);
  let moved = 0;
  weight.data.forEach((value, i) => {
    expect(values[i]).toBeCloseTo(value, 5);
    const r = Math.floor(i / cols);
    const step = (bounds.upper.data[r] - bounds.lower.data[r]) / 3;
    const inside = before[i] > bounds.lower.data[r] && before[i] < bounds.upper.data[r];
    if (inside) expect(Math.abs(value - before[i])).toBeLessThan(step * 1.001);
    if (inside && Math.abs(value - before[i]) > step / 2) moved++;
  });
  expect(moved).toBeGreaterThan(3);
});

test("the low-rank part is the quadratic form of a dense Fisher matrix", () => {
  const [k, channels] = [3, 8];
  const [G, D] = [
    matrix(k, channels, random(k * channels, 6, 0.1, 1)),
    matrix(k, channels, random(k * channels, 7, 0.1, 1)),
  ];
  const dplr = new Dplr(channels);
  const row = (m: Matrix, i: number): Float64Array =>
    m.data.slice(i * channels, (i + 1) * channels);
  for (let i = 0; i < k; i++) dplr.add({ gradient: row(G, i), distance: row(D, i) });
  // F = G^T (D D^T)^-1 G, formed whole.
  const dense = product(product(transposed(G), inverse(product(D, transposed(D)))), G);
  const d = random(channels, 8, 0, 1);
  let wanted = 0;
  for (let i = 0; i < channels; i++)
    for (let j = 0; j < channels; j++) wanted += d[i] * dense.data[i * channels + j] * d[j];
  const { value, gradient } = dplr.lowRank(d);
  expect(value / wanted).toBeCloseTo(1, 3);
  for (let i = 0; i < channels; i++) {
    const slope = d.reduce((sum, x, j) => sum + 2 * dense.data[i * channels + j] * x, 0);
    expect(gradient[i]).toBeCloseTo(slope, 1);
  }
});

test("the metric's gradient is that of differences, and survives a checkpoint", () => {
  const [images, tokens, channels] = [2, 5, 4];
  const size = images * tokens * channels;
  const make = (): Dplr => new Dplr(channels);
  const dplr = make();
  for (let i = 0; i < 2; i++) {
    const draw = (seed: number): Float64Array => Float64Array.from(random(channels, seed, 0.1, 1));
    dplr.add({ gradient: draw(10 + i), distance: draw(20 + i) });
  }
  const [z, y] = [random(size, 30), random(size, 31)];
  const gradient = new Float32Array(size);
  expect(dplr.loss(z, y, images, gradient)).toBeCloseTo(2, 6); // both parts in units of themselves
  const restored = make();
  restored.restore(dplr.state());
  const scratch = new Float32Array(size);
  for (let i = 0; i < size; i += 3) {
    const near = Float32Array.from(z);
    near[i] = z[i] + 1e-3;
    const up = restored.loss(near, y, images, scratch);
    near[i] = z[i] - 1e-3;
    const down = restored.loss(near, y, images, scratch);
    expect(gradient[i]).toBeCloseTo((up - down) / 2e-3, 3);
  }
});

test("the sensitivity of a layer is the gradient that pixels send it", () => {
  const teacher = tinySwin();
  const memory = new Memory();
  const patches = pictures(2, 16, 3);
  const student = calibratedStudent(memory, teacher, policyFor("table4", 4), patches, 0);
  const near = outputSensitivity(memory, teacher, student, patches, 2, 0);
  expect(near.gradient.length).toBe(20);
  expect(near.gradient.every((g) => g > 0)).toBe(true);
  expect(near.distance.every((d) => d > 0)).toBe(true);
  for (const { lower } of student.sites.bounds.values()) expect(lower.grad).toBeNull();
});

test("evened-out norms: the function stays, all channels have one centred range", () => {
  const teacher = tinySwin();
  const memory = new Memory();
  const policy = policyFor("table4", 4);
  const patches = pictures(2, 16, 3);
  const net = copyOf(teacher);
  evenOutNorms(net, inputMoments(memory, teacher, policy, patches, 0));
  const pixels = (of: typeof net): Float32Array =>
    Float32Array.from(
      of.forward(
        new Graph("running", new Memory()),
        patches,
        new FloatSites(),
        new Router({ mode: "sampled", seed: 0 }),
      ).data,
    );
  const [wanted, got] = [pixels(teacher), pixels(net)];
  got.forEach((value, i) => {
    expect(Math.abs(value - wanted[i])).toBeLessThan(2e-4);
  });
  for (const [key, { low, high }] of inputMoments(memory, net, policy, patches, 0)) {
    if (!/qkv|fc1/.test(key)) continue;
    const width = high[0] - low[0];
    high.forEach((top, c) => {
      expect(top).toBeCloseTo(width / 2, 3);
      expect(low[c]).toBeCloseTo(-width / 2, 3);
    });
  }
});
