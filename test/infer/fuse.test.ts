/** Which calls a plan may join, and where their results may lie, on lists made for the purpose. */
import { expect, test } from "vitest";
import { Graph, type Operand, type TracedCall } from "../../lib/autograd.ts";
import type { F32, U8 } from "../../lib/binding.ts";
import { encode } from "../../lib/infer/encode.ts";
import { fuseCodedLinears } from "../../lib/infer/fuse.ts";
import { native } from "../../lib/binding.ts";
import { random } from "../ops/harness.ts";

const ROWS = 64;
const BITS = 4;

const graph = (): Graph => new Graph("tracing");

/** Weights of a layer of `sides` inputs and outputs, packed. */
function packedLayer(sides: number, seed: number): U8 {
  const packed = new Uint8Array((2 * Math.ceil(sides / 4) * 4 + 12) * Math.ceil(sides / 16) * 16);
  const codes = Uint8Array.from(random(sides * sides, seed, 0, 15.99));
  const [low, high] = [random(1, seed, -0.2, -0.1), random(1, seed, 0.1, 0.2)];
  const [lower, upper] = [Float32Array.of(-1), Float32Array.of(1)];
  const bias = random(sides, seed + 1);
  const kinds = [sides, sides, BITS, BITS, 0, 0, 8] as const;
  native().packCodedLinear(codes, lower, upper, low, high, bias, packed, ...kinds);
  return packed;
}

const bounds = [Float32Array.of(-1), Float32Array.of(1)] as const;
const quantise = (x: F32, codes: U8, columns: number): TracedCall => ({
  op: "quantize",
  operands: [x, ...bounds, codes, ROWS, columns, 0, BITS],
});
const layer = (x: U8, packed: U8, y: F32, sides: number): TracedCall => ({
  op: "packedCodedLinear",
  operands: [x, packed, y, ROWS, sides, sides, BITS, BITS],
});

/** Runs a list natively, fused or call by call. */
async function run(calls: readonly TracedCall[], x: F32, y: F32, fused: boolean): Promise<F32> {
  const { code, constants, arenaBytes } = encode(calls, x, y, fused);
  const [inputs, outputs] = [x.length, y.length];
  const list = Float64Array.from(code);
  const plan = native().createPlan(list, constants, arenaBytes, inputs, outputs);
  const result = new Float32Array(outputs);
  const run = native().runPlan(plan, x, result, new Int32Array(1), null, 0, null);
  expect(await run).toBe(true);
  return result;
}

test.each([48, 64, 96, 131])(
  "a chain of %i outputs whose codes could lie where its inputs do",
  async (sides) => {
    const g = graph();
    const size = ROWS * sides;
    const x = random(size, 1, -2, 2);
    // Both codes leave their segments: convolutions stand between, before and behind.
    const [start, first, second] = [0, 1, 2].map(() => g.bytes(size));
    const [soft, product, v, w, last, y] = [0, 1, 2, 3, 4, 5].map(() => g.floats(size));
    const weights = Uint8Array.from(random(sides * 9, 7, 0, 15.99));
    const convolve = (codes: U8, to: F32): TracedCall => ({
      op: "codedDepthwiseConv",
      operands: [codes, weights, ...bounds, ...bounds, null, to, 1, 8, 8, sides, 3, 4, 4, 0, 0, 8],
    });
    const calls: TracedCall[] = [
      quantise(x, start, sides),
      convolve(start, soft),
      { op: "multiply", operands: [soft, x, product, size] },
      quantise(product, first, sides),
      layer(first, packedLayer(sides, 3), v, sides),
      quantise(v, second, sides),
      layer(second, packedLayer(sides, 5), w, sides),
      convolve(second, last),
      { op: "sigmoidGate", operands: [last, w, y, size] },
    ];
    const [fused, plain] = [await run(calls, x, y, true), await run(calls, x, y, false)];
    expect(fused).toEqual(plain);
  },
);

test("a sum of two layers is taken by one of them, which then runs last", async () => {
  const [g, sides] = [graph(), 48];
  const size = ROWS * sides;
  const x = random(size, 2);
  const codes = g.bytes(size);
  const [a, b, sum, y] = [0, 1, 2, 3].map(() => g.floats(size));
  const calls: TracedCall[] = [
    quantise(x, codes, sides),
    layer(codes, packedLayer(sides, 11), a, sides),
    layer(codes, packedLayer(sides, 13), b, sides),
    { op: "add", operands: [a, b, sum, size] },
    { op: "gelu", operands: [sum, y, size] },
  ];
  const joined = fuseCodedLinears(calls);
  const written = joined.flatMap((call) => [call.operands[call.op === "gelu" ? 1 : 5]]);
  expect(written.filter((o: Operand) => o === b || o === sum)).toEqual([b, sum]);
  const [fused, plain] = [await run(calls, x, y, true), await run(calls, x, y, false)];
  expect(fused).toEqual(plain);
});

test("a quantiser of other columns than the layer's is left alone", () => {
  const [g, sides] = [graph(), 48];
  const size = ROWS * sides;
  const [codes, v, after] = [g.bytes(size), g.floats(size), g.bytes(size)];
  const calls: TracedCall[] = [
    layer(codes, packedLayer(sides, 17), v, sides),
    { op: "quantize", operands: [v, ...bounds, after, ROWS * 2, sides / 2, 0, BITS] },
  ];
  expect(fuseCodedLinears(calls).map((call) => call.op)).toEqual(["fusedCodedLinear", "quantize"]);
});
