/** coded_linear: exact integer products with one float epilogue, the same bits everywhere. */
import { describe, expect, test } from "vitest";
import type { F32, U8 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { fastBackends, on, random, relativeError, uniform, zeros } from "./harness.ts";
import { differingNames, onThreads } from "./threads.ts";

const TENSOR = 0;
const ROW = 1;
const COLUMN = 2;

/** rows, in, out, x bits, weight bits, x granularity, weight granularity, storage bits. */
const SHAPES = [
  [1, 1, 1, 4, 4, TENSOR, TENSOR, 4],
  [13, 48, 48, 4, 4, COLUMN, ROW, 4],
  [1999, 48, 17, 4, 4, COLUMN, ROW, 4],
  [101, 19, 3, 2, 2, TENSOR, ROW, 2],
  [97, 24, 149, 1, 1, COLUMN, TENSOR, 1],
  [131, 48, 48, 1, 1, COLUMN, ROW, 1],
  [65, 64, 33, 1, 1, TENSOR, ROW, 1],
  [70, 131, 17, 1, 1, COLUMN, ROW, 8],
  [5, 521, 50, 1, 1, COLUMN, ROW, 1],
  [1, 1, 1, 1, 1, TENSOR, TENSOR, 1],
  [33, 37, 64, 8, 8, TENSOR, ROW, 8],
  [29, 1021, 33, 8, 8, COLUMN, ROW, 8],
  [31, 700, 40, 4, 4, TENSOR, TENSOR, 8],
  [9, 1201, 20, 4, 4, TENSOR, ROW, 8],
  [7, 60, 180, 8, 4, COLUMN, ROW, 4],
  [11, 53, 16, 7, 8, TENSOR, ROW, 8],
  [6, 50, 23, 4, 6, TENSOR, ROW, 8],
  [0, 8, 8, 4, 4, TENSOR, ROW, 4],
  [129, 1, 5, 4, 4, TENSOR, ROW, 4],
] as const;

type Shape = (typeof SHAPES)[number];

/** Codes of `bits` packed as the contract says: rows start on a byte, lowest bits first. */
function pack(codes: U8, rows: number, columns: number, bits: number): U8 {
  const rowBytes = Math.ceil((columns * bits) / 8);
  const packed = new Uint8Array(rows * rowBytes);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const bit = i * bits;
      packed[row * rowBytes + (bit >> 3)] |= codes[row * columns + i] << (bit & 7);
    }
  }
  return packed;
}

function randomCodes(n: number, bits: number, seed: number): U8 {
  const next = uniform(seed);
  return Uint8Array.from({ length: n }, () => Math.floor(next() * 2 ** bits));
}

function makeCase(shape: Shape, seed: number, top = false) {
  const [rows, inputs, outputs, xBits, weightBits, xGranularity, weightGranularity, storage] =
    shape;
  const x = randomCodes(rows * inputs, xBits, seed);
  const codes = randomCodes(outputs * inputs, weightBits, seed + 1);
  if (top) {
    x.fill(2 ** xBits - 1);
    codes.fill(2 ** weightBits - 1);
  }
  const weightBounds = weightGranularity === ROW ? outputs : 1;
  return {
    x,
    codes,
    weight: pack(codes, outputs, inputs, storage),
    xLower: random(xGranularity === COLUMN ? inputs : 1, seed + 2, -1, -0.5),
    xUpper: random(1, seed + 3, 0.5, 1.5),
    weightLower: random(weightBounds, seed + 4, -0.3, -0.1),
    weightUpper: random(weightBounds, seed + 5, 0.1, 0.3),
    bias: random(outputs, seed + 6),
  };
}

function run(c: ReturnType<typeof makeCase>, shape: Shape, bias: F32 | null = c.bias): F32 {
  const [rows, inputs, outputs, ...rest] = shape;
  const y = new Float32Array(rows * outputs + 1).fill(77);
  native().codedLinear(
    c.x,
    c.weight,
    c.xLower,
    c.xUpper,
    c.weightLower,
    c.weightUpper,
    bias,
    y,
    rows,
    inputs,
    outputs,
    ...rest,
  );
  expect(y[rows * outputs]).toBe(77);
  return y.subarray(0, rows * outputs);
}

describe.each(fastBackends)("on %s", (backend) => {
  test.each(SHAPES)(
    "rows %d, in %d, out %d, x %d bit, weight %d bit has the bits of the reference",
    (...shape) => {
      const c = makeCase(shape as unknown as Shape, 300 + shape[1]);
      const expected = on("reference", () => run(c, shape as unknown as Shape));
      expect(on(backend, () => run(c, shape as unknown as Shape))).toEqual(expected);
    },
  );

  test.each(SHAPES)(
    "rows %d, in %d, out %d with every code at its top does not overflow",
    (...shape) => {
      const c = makeCase(shape as unknown as Shape, 9, true);
      const expected = on("reference", () => run(c, shape as unknown as Shape));
      expect(on(backend, () => run(c, shape as unknown as Shape))).toEqual(expected);
    },
  );

  test("a missing bias is a zero bias", () => {
    const shape = SHAPES[1];
    const c = makeCase(shape, 77);
    on(backend, () => expect(run(c, shape, null)).toEqual(run(c, shape, zeros(shape[2]))));
  });

  test("one and two threads give the same bits", () => {
    const shape = SHAPES[2];
    const c = makeCase(shape, 4);
    const one = onThreads(backend, 1, () => ({ y: run(c, shape) }));
    const two = onThreads(backend, 2, () => ({ y: run(c, shape) }));
    expect(differingNames(two, one)).toEqual([]);
  });
});

test.each([SHAPES[1], SHAPES[3], SHAPES[5]])(
  "rows %d, in %d, out %d: the reference is the product of the dequantised operands",
  (...shape) => {
    const typed = shape as unknown as Shape;
    const [rows, inputs, outputs, xBits, weightBits, xGranularity] = typed;
    const c = makeCase(typed, 17);
    const byColumn = xGranularity === COLUMN;
    const xRange = byColumn ? c.xUpper[0] : c.xUpper[0] - c.xLower[0];
    const xStep = xRange / (2 ** xBits - 1);
    const expected = new Float64Array(rows * outputs);
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < outputs; o++) {
        const step = (c.weightUpper[o] - c.weightLower[o]) / (2 ** weightBits - 1);
        let sum = c.bias[o];
        for (let i = 0; i < inputs; i++) {
          const x = xStep * c.x[row * inputs + i] + c.xLower[byColumn ? i : 0];
          sum += x * (step * c.codes[o * inputs + i] + c.weightLower[o]);
        }
        expected[row * outputs + o] = sum;
      }
    }
    expect(
      relativeError(
        on("reference", () => run(c, typed)),
        expected,
      ),
    ).toBeLessThan(2e-6);
  },
);

test("storage narrower than the codes is refused", () => {
  const bytes = new Uint8Array(64);
  const one = zeros(1);
  expect(() =>
    native().codedLinear(
      bytes,
      bytes,
      one,
      one,
      one,
      one,
      null,
      zeros(4),
      1,
      8,
      4,
      4,
      4,
      TENSOR,
      TENSOR,
      2,
    ),
  ).toThrow(/storage_bits/);
});
