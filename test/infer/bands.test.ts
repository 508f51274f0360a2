/** Convolutions in bands of rows, and codes that lie in the output before the result does. */
import { expect, test } from "vitest";
import { Graph, type TracedCall } from "../../lib/autograd.ts";
import { type F32, native } from "../../lib/binding.ts";
import { inBands } from "../../lib/infer/bands.ts";
import { encode } from "../../lib/infer/encode.ts";
import { fastBackends, on, random } from "../ops/harness.ts";

const CHANNELS = 5;
const WIDTH = 7;

interface Encoded {
  readonly arenaBytes: number;
  readonly result: () => Promise<F32>;
}

/** A plan of a list; `spare` bytes of its output may hold other values. */
function planned(calls: readonly TracedCall[], x: F32, y: F32, fused: boolean, spare = 0): Encoded {
  const { code, constants, arenaBytes } = encode(calls, x, y, fused, spare);
  const list = Float64Array.from(code);
  const plan = native().createPlan(list, constants, arenaBytes, x.length, y.length);
  const result = async (): Promise<F32> => {
    const values = new Float32Array(y.length);
    expect(await native().runPlan(plan, x, values, new Int32Array(1), null, 0, null)).toBe(true);
    return values;
  };
  return { arenaBytes, result };
}

/** y = 3 (conv(2 x) + x'), with x' made of x before. */
function sumOfConvolution(height: number): { calls: TracedCall[]; x: F32; y: F32 } {
  const g = new Graph("tracing");
  const size = height * WIDTH * CHANNELS;
  const x = random(size, height, -1, 1);
  const [other, twice, made, sum, y] = [0, 1, 2, 3, 4].map(() => g.floats(size));
  const weight = random(CHANNELS * CHANNELS * 9, 3, -1, 1);
  const sides = [1, height, WIDTH, CHANNELS, CHANNELS, 3];
  const calls: TracedCall[] = [
    { op: "gelu", operands: [x, other, size] },
    { op: "scale", operands: [x, twice, size, 2] },
    { op: "conv2d", operands: [twice, weight, random(CHANNELS, 4), made, ...sides] },
    { op: "add", operands: [made, other, sum, size] },
    { op: "scale", operands: [sum, y, size, 3] },
  ];
  return { calls, x, y };
}

test.each([1, 2, 3, 4, 5, 17, 64])(
  "bands of %i rows give the bits of the whole",
  async (height) => {
    for (const backend of fastBackends) {
      const { calls, x, y } = sumOfConvolution(height);
      const [banded, whole] = on(backend, () =>
        [true, false].map((fused) => planned(calls, x, y, fused)),
      );
      expect(await banded.result()).toEqual(await whole.result());
      if (height >= 17) expect(banded.arenaBytes).toBeLessThan(whole.arenaBytes);
    }
  },
);

test("a value that is read again behind the sum is not written over", () => {
  const { calls } = sumOfConvolution(8);
  const [other] = [calls[0].operands[1] as F32];
  const reader: TracedCall = { op: "scale", operands: [other, other, other.length, 1] };
  expect(inBands(calls, 2)).not.toBe(calls);
  expect(inBands([...calls, reader], 2)).toHaveLength(calls.length + 1);
  expect(inBands(calls, 1)).toBe(calls); // no convolution
});

test("codes lie in the output where there is room, and the result is the same", async () => {
  const g = new Graph("tracing");
  const [rows, columns] = [32, 11];
  const size = rows * columns;
  const x = random(size, 9, -1, 1);
  const bounds = [Float32Array.of(-1), Float32Array.of(1)] as const;
  const [first, second] = [g.bytes(size), g.bytes(size)];
  const [a, b, y] = [g.floats(size), g.floats(size), g.floats(size)];
  const grid = [rows, columns, 0, 4];
  const calls: TracedCall[] = [
    { op: "quantize", operands: [x, ...bounds, first, ...grid] },
    { op: "transpose", operands: [x, a, rows, columns] },
    { op: "quantize", operands: [a, ...bounds, second, ...grid] },
    { op: "dequantize", operands: [first, ...bounds, b, ...grid] },
    { op: "transpose", operands: [b, a, rows, columns] },
    { op: "dequantize", operands: [second, ...bounds, b, ...grid] },
    { op: "add", operands: [a, b, y, size] },
  ];
  const without = planned(calls, x, y, false);
  // Room for both, for one, and for none.
  for (const [spare, saved] of [
    [size * 4, 2],
    [size + 63, 1],
    [size - 1, 0],
  ]) {
    const beside = planned(calls, x, y, false, spare);
    expect(await beside.result()).toEqual(await without.result());
    const rounded = Math.ceil(size / 64) * 64;
    expect(without.arenaBytes - beside.arenaBytes).toBe(saved * rounded);
  }
});
