/**
 * Calls on each row by itself, joined in kernels of whole segments (native/cuda/segment.cu): the bits
 * of the calls one after the other, with a launch a segment.
 */
import { describe, expect, test } from "vitest";
import { Graph, type TracedCall } from "../../lib/autograd.ts";
import { describeCuda, type F32, native, type U8 } from "../../lib/binding.ts";
import { addressOf, DeviceMemory, readable } from "../../lib/device.ts";
import { encode } from "../../lib/infer/encode.ts";
import { Plan } from "../../lib/infer/plan.ts";
import { deviceTarget } from "../../lib/infer/target.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import type { Network } from "../../lib/models/network.ts";
import { SWINIR } from "../../lib/models/swinir.ts";
import { packStudent, unpackModel } from "../../lib/quant/pack.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { random } from "../ops/harness.ts";
import { initialise } from "../../lib/train/pretrain.ts";
import { pictures, TINY_SWIN, tinyNet, tinySwin } from "../tiny_net.ts";

const { code, hostMemory } = describeCuda();

const COLUMNS = 12;
const CLASSES = 8;
/** Calls that one launch takes at most (kMostJoined of segment.cu). */
const MOST_JOINED = 16;

/** A coded linear layer from COLUMNS codes to `out`, its weights packed on the host. */
function packedLayer(out: number, bits: number): U8 {
  const packed = new Uint8Array((2 * COLUMNS + 12) * Math.ceil(out / 16) * 16);
  const codes = Uint8Array.from(random(COLUMNS * out, 3, 0, 2 ** bits - 0.01));
  const bounds = [0, 1, 2, 3].map((i) => Float32Array.of(i % 2 ? 1 : -1));
  const sizes = [COLUMNS, out, bits, bits, 0, 0, 8] as const;
  native().packCodedLinear(codes, ...(bounds as [F32, F32, F32, F32]), null, packed, ...sizes);
  return packed;
}

/** Every op that joins, and more of them than a launch takes; the result has four columns. */
function everyOp(rows: number, x: F32, y: F32, bits: number): TracedCall[] {
  const g = new Graph("tracing");
  const n = rows * COLUMNS;
  const calls: TracedCall[] = [];
  const run = (op: TracedCall["op"], ...operands: TracedCall["operands"]): void => {
    calls.push({ op, operands });
  };
  const made = (op: TracedCall["op"], ...inputs: F32[]): F32 => {
    const result = g.floats(n);
    run(op, ...inputs, result, n, ...(op === "scale" ? [0.75] : []));
    return result;
  };
  const offsets = random(COLUMNS, 5, -1.5, -1);
  const index = Int32Array.from({ length: rows }, (_, i) => (i * 7 + 3) % rows);
  const gathered = g.floats(n);
  run("gatherRows", x, index, gathered, rows, COLUMNS);
  const normed = g.floats(n);
  const norm = [random(COLUMNS, 6, 0.5, 1.5), random(COLUMNS, 7)] as const;
  run("layerNorm", gathered, ...norm, normed, rows, COLUMNS);
  const codes = g.bytes(n);
  run("quantize", normed, offsets, Float32Array.of(3), codes, rows, COLUMNS, 2, bits);
  const values = g.floats(n);
  run("dequantize", codes, offsets, Float32Array.of(3), values, rows, COLUMNS, 2, bits);
  const again = g.floats(n);
  const range = [Float32Array.of(-1), Float32Array.of(1.25)] as const;
  run("qdq", values, ...range, again, rows, COLUMNS, 0, bits);
  let sum = made("sigmoidGate", made("gelu", again), normed);
  sum = made("add", made("multiply", sum, values), gathered);
  for (let i = 0; i < MOST_JOINED; i++) sum = made("scale", made("add", sum, normed));
  const residual = g.floats(n);
  run("scaleAdd", sum, random(COLUMNS, 8), normed, residual, rows, COLUMNS);
  const [c, logits] = [g.floats(rows * 4), g.floats(rows * CLASSES)];
  run("sliceColumns", residual, c, rows, COLUMNS, 0, 4);
  run("sliceColumns", residual, logits, rows, COLUMNS, 4, CLASSES);
  const classes = g.ints(rows);
  run("route", logits, classes, 1, rows, CLASSES, 1, 5, 0, 3, 0);
  const prompted = g.floats(rows * 4);
  run("addPrompt", c, random(CLASSES * 4, 9), classes, prompted, rows, CLASSES, 4);
  const [wide, four] = [g.floats(rows * 70), g.floats(rows * 4)];
  const layer = packedLayer(70, bits);
  run("packedCodedLinear", codes, layer, wide, rows, COLUMNS, 70, bits, bits);
  run("sliceColumns", wide, four, rows, 70, 66, 4);
  run("add", four, prompted, y, rows * 4);
  return calls;
}

/** Two layers of the same kernel, of which the second needs less shared memory. */
function wideThenNarrow(rows: number, x: F32, y: F32): TracedCall[] {
  const g = new Graph("tracing");
  const codes = g.bytes(rows * COLUMNS);
  const bounds = [Float32Array.of(-2), Float32Array.of(2)] as const;
  const calls: TracedCall[] = [
    { op: "quantize", operands: [x, ...bounds, codes, rows, COLUMNS, 0, 4] },
  ];
  const ends = [256, 128].map((out) => {
    const [values, end] = [g.floats(rows * out), g.floats(rows * 4)];
    const none = [null, null, null, null, null, null, null, null];
    const sizes = [rows, COLUMNS, out, 4, 4, 0, out, 0, 0, 0, 0, 0, 0, 1];
    const operands = [codes, packedLayer(out, 4), null, null, null, values, ...none, ...sizes];
    calls.push({ op: "fusedCodedLinear", operands });
    calls.push({ op: "sliceColumns", operands: [values, end, rows, out, out - 4, 4] });
    return end;
  });
  calls.push({ op: "add", operands: [...ends, y, rows * 4] });
  return calls;
}

/** The result on the GPU, and kernels of one run. */
function onDevice(calls: TracedCall[], x: F32, y: F32, fused: boolean): [F32, number] {
  const { code: list, constants, arenaBytes } = encode(calls, x, y, fused, 0, deviceTarget());
  const sizes = [arenaBytes, x.length, y.length] as const;
  const plan = native().createDevicePlan(Float64Array.from(list), constants, ...sizes);
  const graph = new Graph("running", new DeviceMemory());
  const [input, output] = [graph.input(x), graph.floats(y.length)];
  const before = native().deviceCounters().launches;
  native().runDevicePlanOn(plan, addressOf(input), addressOf(output), 0);
  const launches = native().deviceCounters().launches - before;
  const result = Float32Array.from(readable(output));
  native().releaseDevicePlan(plan);
  graph.dispose();
  return [result, (launches - 1) / 2]; // run, then recorded; and the cell of the noise
}

/** `net` with packed weights of 4 bits, as a file would give it. */
function packed(net: Network): Student {
  const policy = policyFor("best", 4);
  const patches = pictures(1, 2 * net.config.window, 3);
  const shape = { experts: 0, rank: 0 };
  const student = createStudent(new Memory(), net, policy, RECIPES.best, shape, patches, 0);
  const { tensors, metadata } = readSafetensors(packStudent(student, {}), "packed");
  return unpackModel(tensors, metadata, "packed");
}

describe.skipIf(!hostMemory || code !== "OK")("segments on the shim (npm run test:cuda)", () => {
  // 64 rows a block: less than one, one, and two with a rest.
  test.each([
    [1, 4],
    [63, 1],
    [64, 8],
    [130, 4],
  ])("every op that joins, %i rows at %i bits: the bits of the calls alone", (rows, bits) => {
    const x = random(rows * COLUMNS, 1, -2, 2);
    const y = new Float32Array(rows * 4);
    const calls = everyOp(rows, x, y, bits);
    const [alone, many] = onDevice(calls, x, y, false);
    const [joined, few] = onDevice(calls, x, y, true);
    expect(alone.every(Number.isFinite)).toBe(true);
    expect(joined).toEqual(alone);
    expect(many).toBe(calls.length);
    expect(few).toBe(Math.ceil(calls.length / MOST_JOINED));
    expect(onDevice(calls, x, y, true)[0]).toEqual(joined);
  });

  // The runtime may look at a kernel's limit again when the graph is made of what was recorded.
  test("a layer that needs little shared memory takes none from a recorded one", () => {
    const x = random(70 * COLUMNS, 1, -2, 2);
    const y = new Float32Array(70 * 4);
    const calls = wideThenNarrow(70, x, y);
    const [alone] = onDevice(calls, x, y, false);
    expect(alone.every(Number.isFinite)).toBe(true);
    expect(onDevice(calls, x, y, true)[0]).toEqual(alone);
  });

  test.each([
    ["MambaIRv2", tinyNet],
    ["SwinIR", tinySwin],
  ])("a packed %s launches what its steps are", (_, make) => {
    const { net, sites } = packed(make());
    const routing = { mode: "sampled", seed: 5 } as const;
    const plan = new Plan(net, sites, 16, 16, routing, true, "cuda");
    const graph = new Graph("running", new DeviceMemory());
    const image = graph.input(pictures(1, 16, 9).data);
    const before = native().deviceCounters().launches;
    plan.runOn(image, graph.floats(image.length * net.config.scale ** 2));
    const launches = native().deviceCounters().launches - before;
    const ops = plan.steps.map((step) => step.split("+"));
    const tables = ops.flat().filter((name) => name === "fusedCodedDepthwiseConv").length;
    expect(launches).toBe(2 * plan.steps.length + tables + 1); // tables are made once
    // What reads other rows begins a segment.
    for (const reader of ["codedWindowAttention", "fusedCodedDepthwiseConv"]) {
      const steps = ops.filter((names) => names.includes(reader));
      expect(steps.every((names) => names[0] === reader && names.length > 1)).toBe(true);
    }
    graph.dispose();
  });

  test("windows of 144 tokens, which a block takes 64 at a time: the pixels of the calls alone", async () => {
    const { net, sites } = packed(initialise(SWINIR, { ...TINY_SWIN, window: 12 }, 1));
    const image = random(36 * 24 * 3, 9, 0, 1);
    const routing = { mode: "argmax", seed: 0 } as const;
    const [joined, alone] = [true, false].map(
      (fused) => new Plan(net, sites, 36, 24, routing, fused, "cuda"),
    );
    expect(joined.steps.some((step) => /^codedWindowAttention[+]/.test(step))).toBe(true);
    expect(await joined.run(image)).toEqual(await alone.run(image));
  });
});
