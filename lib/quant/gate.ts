/**
 * The paper's input-dependent gate (Eq. 10): per sample, g = softmax(W2 GELU(W1 LN(mean of the
 * layer's input over tokens) + b1) + b2), averaged over the batch, so that one weight serves each
 * step. W2 starts at zero: all gates equal. The input is taken as given (no gradient through it).
 * The tensors are tiny (48 -> 16 -> 4), so the arithmetic is plain TypeScript in double.
 */
import { type Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import * as ops from "../ops.ts";
import { floats } from "../tensor.ts";

/** Width of the gate's hidden layer. */
const HIDDEN = 16;

export interface DynamicGate {
  /** (HIDDEN, in) */
  readonly w1: Var;
  readonly b1: Var;
  /** (experts, HIDDEN) */
  readonly w2: Var;
  readonly b2: Var;
}

/** A fresh gate for inputs of `cols` channels; `draw` gives uniform numbers in [0, 1). */
export function createGate(cols: number, experts: number, draw: () => number): DynamicGate {
  const w1 = floats(HIDDEN * cols);
  for (let i = 0; i < w1.length; i++) w1[i] = (2 * draw() - 1) / Math.sqrt(cols);
  return {
    w1: new Var(w1, [HIDDEN, cols], true),
    b1: new Var(floats(HIDDEN), [HIDDEN], true),
    w2: new Var(floats(experts * HIDDEN), [experts, HIDDEN], true),
    b2: new Var(floats(experts), [experts], true),
  };
}

/** Everything that one sample's gate needs again in its backward pass. */
interface Pass {
  readonly z: Float64Array;
  readonly before: Float64Array;
  readonly hidden: Float64Array;
  readonly gates: Float64Array;
}

/** erf to about 1e-7. */
function erf(x: number): number {
  const t = Math.abs(x);
  if (t > 4) return Math.sign(x);
  // Maclaurin series: at |x| <= 4 its 60 terms leave less than 1e-9.
  let term = t;
  let total = t;
  for (let n = 1; n < 60; n++) {
    term *= (-t * t) / n;
    total += term / (2 * n + 1);
  }
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * total;
}

const gelu = (x: number): number => 0.5 * x * (1 + erf(x / Math.SQRT2));
const geluSlope = (x: number): number =>
  0.5 * (1 + erf(x / Math.SQRT2)) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);

/** Means of x (samples * tokens, cols) over the tokens of each sample, normed over channels. */
function describe(g: Graph, x: Var, samples: number): Float64Array[] {
  const cols = x.shape[1];
  const tokens = x.size / cols / samples;
  const ones = g.floats(tokens).fill(1);
  const sums = g.floats(cols);
  return Array.from({ length: samples }, (_, b) => {
    const rows = x.data.subarray(b * tokens * cols, (b + 1) * tokens * cols);
    g.run("linearGradWeight", ones, rows, sums, null, tokens, cols, 1);
    const mean = Float64Array.from(sums, (sum) => sum / tokens);
    const centre = mean.reduce((a, v) => a + v, 0) / cols;
    const spread = mean.reduce((a, v) => a + (v - centre) ** 2, 0) / cols;
    return mean.map((v) => (v - centre) / Math.sqrt(spread + 1e-5));
  });
}

function pass({ w1, b1, w2, b2 }: DynamicGate, z: Float64Array): Pass {
  const before = Float64Array.from(b1.data, (bias, h) =>
    z.reduce((total, value, c) => total + w1.data[h * z.length + c] * value, bias),
  );
  const hidden = before.map(gelu);
  const logits = Float64Array.from(b2.data, (bias, i) =>
    hidden.reduce((total, value, h) => total + w2.data[i * HIDDEN + h] * value, bias),
  );
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return { z, before, hidden, gates: powers.map((power) => power / total) };
}

/** Arrays of one value and length, made once each. */
const UNIFORM = new Map<string, F32>();

function uniform(value: number, length: number): F32 {
  const key = `${value}:${length}`;
  if (!UNIFORM.has(key)) UNIFORM.set(key, floats(length).fill(value));
  return UNIFORM.get(key)!;
}

/** The same gates by the network's own ops, where the host cannot look at x without waiting. */
function gatesByOps(g: Graph, gate: DynamicGate, x: Var, samples: number): Var {
  const cols = x.shape[1];
  const tokens = x.size / cols / samples;
  const each = g.constant(uniform(1, tokens));
  const sums = new Var(g.floats(samples * cols), [samples, cols]);
  for (let b = 0; b < samples; b++) {
    const rows = x.data.subarray(b * tokens * cols, (b + 1) * tokens * cols);
    const sum = sums.data.subarray(b * cols, (b + 1) * cols);
    g.run("linearGradWeight", each, rows, sum, null, tokens, cols, 1);
  }
  const [unit, none] = [1, 0].map((value) => new Var(g.constant(uniform(value, cols)), [cols]));
  const z = ops.layerNorm(g, ops.scale(g, sums, 1 / tokens), unit, none);
  const hidden = ops.gelu(g, ops.linear(g, z, gate.w1, gate.b1));
  const gates = ops.softmax(g, ops.linear(g, hidden, gate.w2, gate.b2));
  const experts = gate.b2.size;
  const column = g.constant(uniform(1, samples));
  const mean = (rows: F32, y: F32): void => {
    g.run("linearGradWeight", column, rows, y, null, samples, experts, 1);
    g.run("scale", y, y, experts, 1 / samples);
  };
  const y = new Var(g.floats(experts), [experts]);
  mean(gates.data, y.data);
  return g.record(y, [gates], (gy) => {
    const [share, gx] = [g.floats(experts), g.floats(gates.size)];
    g.run("scale", gy, share, experts, 1 / samples);
    g.run("linear", column, share, null, gx, samples, 1, experts); // the same row for every sample
    return [gx];
  });
}

/** The batch's gates, (experts), for a layer input x (samples * tokens, cols). */
export function dynamicGates(g: Graph, gate: DynamicGate, x: Var, samples: number): Var {
  if (g.memory.onDevice) return gatesByOps(g, gate, x, samples);
  const passes = describe(g, x, samples).map((z) => pass(gate, z));
  const experts = gate.b2.size;
  const values = new Float32Array(experts);
  for (const { gates } of passes)
    gates.forEach((value, i) => {
      values[i] += value / samples;
    });
  return g.record(new Var(values, [experts]), [gate.w1, gate.b1, gate.w2, gate.b2], (gy) => {
    const [w1, b1, w2, b2] = [gate.w1, gate.b1, gate.w2, gate.b2].map((p) =>
      g.floats(p.size).fill(0),
    );
    for (const { z, before, hidden, gates } of passes) {
      const mean = gates.reduce((total, value, i) => total + value * gy[i], 0);
      const back = new Float64Array(HIDDEN);
      gates.forEach((value, i) => {
        const slope = (value * (gy[i] - mean)) / samples;
        b2[i] += slope;
        hidden.forEach((unit, h) => {
          w2[i * HIDDEN + h] += slope * unit;
          back[h] += slope * gate.w2.data[i * HIDDEN + h];
        });
      });
      back.forEach((value, h) => {
        const slope = value * geluSlope(before[h]);
        b1[h] += slope;
        z.forEach((input, c) => {
          w1[h * z.length + c] += slope * input;
        });
      });
    }
    return [w1, b1, w2, b2];
  });
}
