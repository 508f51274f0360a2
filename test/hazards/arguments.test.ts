/**
 * What fuzzing found at the native boundary (test/fuzz), kept small: hostile arguments, hostile lists of
 * calls, arrays that move. Each is refused by a coded error, and the process lives.
 */
import { describe, expect, test } from "vitest";
import { type F32, type NativeBinding, native } from "../../lib/binding.ts";
import { Spr2qError } from "../../lib/errors.ts";
import { refusal, refusalOf } from "../io/helpers.ts";

const n: NativeBinding = native();
const op = (name: string): number => n.opNames().indexOf(name);
const four = (): F32 => new Float32Array(4);
const plan = (code: readonly number[], arena = 64, inputs = 4, outputs = 4): object =>
  n.createPlan(Float64Array.from(code), [], arena, inputs, outputs);
/** gelu(input) -> output, 4 values. */
const GELU = [op("gelu"), -1, -1, 1, 0, 4, 0, 2, 0, 4, 0, 4];
const run = (handle: object, input: unknown, output: unknown, cancel: unknown = null) =>
  n.runPlan(handle, input as F32, output as F32, cancel as never, null, 0, null);

interface Resizable extends ArrayBuffer {
  resize(bytes: number): void;
}
function resizable(bytes: number): Resizable {
  const Kind = ArrayBuffer as unknown as new (b: number, o: { maxByteLength: number }) => Resizable;
  return new Kind(bytes, { maxByteLength: 2 * bytes });
}
function detached(): F32 {
  const array = four();
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

test("what the addon throws is a Spr2qError with a code", () => {
  expect(() => n.gelu(four(), four(), 5)).toThrow(Spr2qError);
  expect(refusal(() => n.gelu(four(), four(), 5))).toMatch(/^ERR_ARGUMENT: gelu: needs/);
  expect(refusal(() => n.gelu(four(), [1] as never, 1))).toMatch(/^ERR_ARGUMENT: .*Float32Array/);
  expect(refusal(() => n.gelu(four(), Symbol("y") as never, 1))).toMatch(/^ERR_ARGUMENT/);
  expect(refusal(() => n.useBackend(Symbol("x") as never))).toMatch(/^ERR_ARGUMENT.*text/);
  expect(refusal(() => n.openCuda({} as never))).toMatch(/^ERR_ARGUMENT.*text/);
});

test("no number of threads or bytes is taken at its word", () => {
  for (const count of [0, -1, 1.5, Number.NaN, 1e9, 2 ** 32 + 1]) {
    expect(refusal(() => n.threads(count))).toMatch(/^ERR_ARGUMENT: threads/);
  }
  for (const bytes of [-1, Number.NaN, 2 ** 60, 0.5]) {
    expect(refusal(() => n.allocate(bytes))).toMatch(/^ERR_ARGUMENT: allocate/);
  }
  expect(refusal(() => n.adjustMemory(2 ** 53))).toMatch(/^ERR_ARGUMENT: adjustMemory/);
});

test("a scale whose square leaves 64 bits is refused", () => {
  const mean = new Float32Array(1);
  const call = () => n.pixelShuffle(new Float32Array(0), mean, four(), 1, 1, 1, 1, 2 ** 32, 2, 2);
  expect(refusal(call)).toMatch(/scale <= kMostScale/);
});

test("negative sizes are refused where their product is positive", () => {
  expect(refusal(() => n.transpose(four(), four(), -2, -2))).toMatch(/rows >= 0/);
  expect(refusal(() => n.add(four(), four(), four(), -1))).toMatch(/n >= 0/);
  expect(refusal(() => n.scale(four(), four(), -(2 ** 52), 1))).toMatch(/n >= 0/);
});

test("sorting stays inside its arrays where they overlap, and counts few classes", () => {
  const before = n.backendName();
  const tokens = 9000;
  for (const backend of n.backends()) {
    n.useBackend(backend);
    const memory = new Int32Array(tokens + 3).map((_, i) => (i * 7) % 5);
    const classes = memory.subarray(0, tokens);
    const order = memory.subarray(1, tokens + 1);
    const inverse = memory.subarray(2, tokens + 2);
    n.sortTokens(classes, order, inverse, 1, tokens, 5);
    expect(memory[tokens + 2]).toBe(((tokens + 2) * 7) % 5);
    const one = new Int32Array(1);
    expect(refusal(() => n.sortTokens(one, one, null, 1, 1, 2 ** 40))).toMatch(/kMostClasses/);
  }
  n.useBackend(before);
});

describe("hostile lists of calls", () => {
  const segment = (rows: number, tileRows: number, tileBytes: number, ...exported: number[]) => [
    ...[-1, 1, rows, tileRows, tileBytes, exported.length / 3, ...exported],
    ...[op("gelu"), 2, -1, 0, 0, 4, 1, 0, 16, 4, 1, 1],
  ];
  const refused: readonly (readonly [string, readonly number[], RegExp])[] = [
    ["an op that is no number", [Number.NaN, ...GELU.slice(1)], /unknown op/],
    ["an op that is no whole number", [0.5, ...GELU.slice(1)], /unknown op/],
    ["an op beyond 64 bits", [1e300], /unknown op/],
    ["a size that is no whole number", GELU.with(11, 0.5), /whole number/],
    ["a field that is no number", GELU.with(1, Number.NaN), /whole number/],
    ["a view between two elements", GELU.with(4, 2), /between two of its elements/],
    ["a size beyond 64 bits", GELU.with(11, 1e300), /whole number/],
    ["rows that nothing holds", segment(2 ** 53, 1, 0), /a segment needs/],
    ["tiles that no thread holds", segment(4, 2, 2 ** 50), /a segment needs/],
    ["a segment without numbers", [-1, 1, Number.NaN, 1, 0, 0, ...GELU], /a segment needs/],
    ["an export that wraps", segment(4, 2, 8, 0, 0, 2 ** 53), /an export/],
    ["a count that wraps", segment(4, 2, 0).with(17, 2 ** 52), /2\^56|64 bits|gelu: needs/],
  ];
  test.each(refused)("%s", (_, code, message) => {
    expect(refusal(() => plan(code))).toMatch(/^ERR_ARGUMENT: createPlan: /);
    expect(refusal(() => plan(code))).toMatch(message);
  });

  test("sizes whose product leaves 64 bits", () => {
    const linear = [op("linear"), -1, -1];
    const views = [1, 0, 4, 0, 1, 0, 4, 0, -1, 0, 0, 0, 2, 0, 4, 0];
    const code = [...linear, ...views, 2 ** 31, 2 ** 33, 1];
    expect(refusal(() => plan(code))).toMatch(/linear: sizes whose product is beyond 2\^56/);
  });

  test("memory that no machine has", async () => {
    expect(refusal(() => plan(GELU, 2 ** 53 - 1))).toMatch(/beyond 2\^46/);
    expect(refusal(() => plan(GELU, Number.NaN))).toMatch(/arenaBytes must be a whole number/);
    const handle = plan(GELU, 2 ** 46);
    expect(await refusalOf(run(handle, four(), four()))).toMatch(/^ERR_OUT_OF_MEMORY: no memory/);
  });

  test("a call that holds for the planned tile and not for the smaller one that runs", async () => {
    // Height counts rows: 200 of them are padded to 200, which 48 of them cannot be.
    const rows = 200;
    const views = [1, 0, rows, 1, 1, 0, 1, 0, -2, 0, rows, 0];
    const code = [
      -1,
      1,
      rows,
      rows,
      4 * rows,
      0,
      op("padImage"),
      4,
      -1,
      ...views,
      1,
      1,
      1,
      rows,
      1,
      1,
      0,
    ];
    const handle = plan(code, 64, rows, 4);
    const before = n.threads();
    n.threads(2);
    expect(await refusalOf(run(handle, new Float32Array(rows), four()))).toMatch(
      /^ERR_ARGUMENT: .*needs padded_height/,
    );
    n.threads(before);
  });
});

test("a run takes no array that may move, end, or is of another kind", async () => {
  const handle = plan(GELU);
  const cases: readonly (readonly [unknown, unknown, unknown, RegExp])[] = [
    [detached(), four(), null, /input is smaller/],
    [four(), new Float32Array(3), null, /output is smaller/],
    [new Float32Array(resizable(16)), four(), null, /may change its size/],
    [four(), new Float32Array(resizable(16)), null, /may change its size/],
    [new Int32Array(4), four(), null, /another kind/],
    [four(), new Float64Array(4), null, /another kind/],
    [four(), four(), new Int32Array(0), /cancel is smaller/],
    [four(), four(), new Float32Array(1), /another kind/],
    [four(), null, null, /takes \(plan/],
  ];
  for (const [input, output, cancel, message] of cases) {
    expect(refusal(() => run(handle, input, output, cancel))).toMatch(/^ERR_ARGUMENT: runPlan/);
    expect(refusal(() => run(handle, input, output, cancel))).toMatch(message);
  }
  expect(refusal(() => n.runPlan(handle, four(), four(), null, null, Number.NaN, null))).toMatch(
    /noiseTile must be a whole number/,
  );
  n.releasePlan(handle);
  expect(refusal(() => run(handle, four(), four()))).toMatch(/^ERR_DISPOSED/);
});
