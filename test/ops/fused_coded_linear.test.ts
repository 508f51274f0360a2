/** fused_coded_linear: on every backend the bits of its parts, one call after the other. */
import { describe, expect, test } from "vitest";
import type { F32, U8 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { fastBackends, on, random, uniform, zeros } from "./harness.ts";
import { onThreads } from "./threads.ts";

const TENSOR = 0;
const COLUMN = 2;

/** Which parts follow the product, and on what. */
interface Chain {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly bits: number;
  readonly gelu?: boolean;
  readonly factor?: number;
  readonly added?: boolean;
  readonly residual?: boolean;
  /** Columns that y keeps. */
  readonly kept?: number;
  readonly streamed?: boolean;
  readonly first?: number;
  readonly norm?: boolean;
  /** Granularities of the quantisers, none to two. */
  readonly coders?: readonly number[];
}

const CHAINS: readonly Chain[] = [
  { rows: 1, inputs: 1, outputs: 1, bits: 4, coders: [TENSOR] },
  { rows: 13, inputs: 48, outputs: 48, bits: 4, factor: 0.25, coders: [COLUMN] },
  { rows: 1999, inputs: 48, outputs: 48, bits: 4, added: true, kept: 48, norm: true, coders: [2] },
  {
    ...{ rows: 777, inputs: 24, outputs: 48, bits: 4, added: true, residual: true, kept: 48 },
    ...{ streamed: true, norm: true, coders: [COLUMN, TENSOR] },
  },
  {
    ...{ rows: 1601, inputs: 48, outputs: 48, bits: 4, gelu: true, kept: 24, first: 24 },
    ...{ streamed: true, norm: true, coders: [COLUMN] },
  },
  { rows: 70, inputs: 48, outputs: 48, bits: 2, gelu: true, kept: 24, first: 24, coders: [TENSOR] },
  {
    ...{ rows: 90, inputs: 48, outputs: 48, bits: 1, gelu: true, kept: 24, first: 24, norm: true },
    ...{ coders: [COLUMN] },
  },
  { rows: 131, inputs: 120, outputs: 60, bits: 4, added: true, kept: 60, norm: true, coders: [0] },
  { rows: 133, inputs: 60, outputs: 120, bits: 4, gelu: true, coders: [COLUMN] },
  { rows: 65, inputs: 60, outputs: 60, bits: 8, added: true, kept: 60, streamed: true, norm: true },
  { rows: 29, inputs: 37, outputs: 19, bits: 4, kept: 19 },
  { rows: 17, inputs: 3, outputs: 33, bits: 4, kept: 7, first: 11, norm: true, coders: [0, 2] },
  { rows: 40, inputs: 16, outputs: 64, bits: 1, kept: 64, coders: [TENSOR] },
  { rows: 9, inputs: 48, outputs: 256, bits: 4, residual: true, norm: true, coders: [COLUMN] },
  { rows: 0, inputs: 8, outputs: 8, bits: 4, kept: 8, coders: [TENSOR] },
];

function randomCodes(n: number, bits: number, seed: number): U8 {
  const next = uniform(seed);
  return Uint8Array.from({ length: n }, () => Math.floor(next() * 2 ** bits));
}

/** Floats on a line of the cache, as in an arena: streamed results take another path there. */
function aligned(n: number): F32 {
  return new Float32Array(native().allocate(n * 4), 0, n).fill(77);
}

/** Operands of a chain; weights are packed by the backend in use. */
function operandsOf(c: Chain) {
  const { rows, inputs, outputs, bits } = c;
  const columns = outputs - (c.first ?? 0);
  const width = Math.ceil(outputs / 16) * 16;
  const packed = new Uint8Array((2 * Math.ceil(inputs / 4) * 4 + 12) * width);
  const weight = randomCodes(outputs * inputs, bits, 2);
  const [lower, upper] = [random(outputs, 3, -0.3, -0.1), random(outputs, 4, 0.1, 0.3)];
  const [xLower, xUpper] = [random(inputs, 5, -1, -0.5), Float32Array.of(1.7)];
  const bias = random(outputs, 6);
  const sizes = [inputs, outputs, bits, bits, COLUMN, 1, 8] as const;
  native().packCodedLinear(weight, xLower, xUpper, lower, upper, bias, packed, ...sizes);
  const x = randomCodes(rows * inputs, bits, 1);
  return {
    ...{ x, packed, columns },
    added: c.added ? random(rows * outputs, 7) : null,
    scale: c.residual ? random(outputs, 8) : null,
    residual: c.residual ? random(rows * outputs, 9) : null,
    normWeight: c.norm ? random(columns, 10, 0.5, 1.5) : null,
    normBias: c.norm ? random(columns, 11) : null,
    coders: (c.coders ?? []).map((granularity, i) => ({
      granularity,
      lower: random(granularity === COLUMN ? columns : 1, 12 + i, -0.9, -0.4),
      upper: Float32Array.of(granularity === COLUMN ? 1.6 : 0.8),
    })),
  };
}

interface Results {
  readonly y: F32 | null;
  readonly codes: readonly U8[];
}

function fused(c: Chain): Results {
  const o = operandsOf(c);
  const y = c.kept ? aligned(c.rows * c.kept) : null;
  const codes = o.coders.map(() => new Uint8Array(c.rows * o.columns + 1).fill(99));
  const coder = (i: number) =>
    o.coders[i]
      ? ([o.coders[i].lower, o.coders[i].upper, codes[i]] as const)
      : ([null, null, null] as const);
  const kind = (i: number): [number, number] => [c.bits, o.coders[i]?.granularity ?? 0];
  native().fusedCodedLinear(
    ...([o.x, o.packed, o.added, o.scale, o.residual, y, o.normWeight, o.normBias] as const),
    ...coder(0),
    ...coder(1),
    ...([c.rows, c.inputs, c.outputs, c.bits, c.bits, c.gelu ? 1 : 0, c.kept ?? 0] as const),
    ...([c.first ?? 0, ...kind(0), ...kind(1), c.streamed ? 1 : 0, c.factor ?? 1] as const),
  );
  expect(codes.every((list) => list[c.rows * o.columns] === 99)).toBe(true);
  return { y, codes: codes.map((list) => list.subarray(0, -1)) };
}

function inParts(c: Chain): Results {
  const { rows, outputs, inputs, bits } = c;
  const o = operandsOf(c);
  const n = native();
  let v = zeros(rows * outputs);
  const step = (run: (from: F32, to: F32) => void): void => {
    const to = zeros(v.length);
    run(v, to);
    v = to;
  };
  n.packedCodedLinear(o.x, o.packed, v, rows, inputs, outputs, bits, bits);
  if (c.gelu) step((from, to) => n.gelu(from, to, from.length));
  if (c.factor) step((from, to) => n.scale(from, to, from.length, c.factor!));
  if (o.added) step((from, to) => n.add(from, o.added!, to, from.length));
  if (o.residual) {
    step((from, to) => n.scaleAdd(o.residual!, o.scale!, from, to, rows, outputs));
  }
  const y = c.kept ? zeros(rows * c.kept) : null;
  if (y) n.sliceColumns(v, y, rows, outputs, 0, c.kept!);
  const rest = zeros(rows * o.columns);
  n.sliceColumns(v, rest, rows, outputs, c.first ?? 0, o.columns);
  const normed = zeros(rest.length);
  if (o.normWeight) n.layerNorm(rest, o.normWeight, o.normBias!, normed, rows, o.columns);
  const codes = o.coders.map(({ lower, upper, granularity }) => {
    const to = new Uint8Array(rows * o.columns);
    const from = o.normWeight ? normed : rest;
    n.quantize(from, lower, upper, to, rows, o.columns, granularity, bits);
    return to;
  });
  return { y, codes };
}

describe.each([...fastBackends, "reference"])("on %s", (backend) => {
  test.each(CHAINS.map((c, i) => [i, c] as const))("chain %i: %j", (_, c) => {
    on(backend, () => expect(fused(c)).toEqual(inParts(c)));
  });

  test("one and two threads give the same bits", () => {
    for (const c of [CHAINS[2], CHAINS[3], CHAINS[4]]) {
      expect(onThreads(backend, 2, () => fused(c))).toEqual(onThreads(backend, 1, () => fused(c)));
    }
  });
});

test("operands that do not fit each other are refused by name", () => {
  const one = zeros(64);
  const bytes = new Uint8Array(4096);
  const call = (scale: F32 | null, first: number, codes: U8 | null): void =>
    native().fusedCodedLinear(
      ...([bytes, bytes, null, scale, null, one, null, null, one, one, codes] as const),
      ...([null, null, null, 1, 8, 8, 4, 4, 0, 8, first, 4, TENSOR, 1, TENSOR, 0, 1] as const),
    );
  expect(() => call(one, 0, bytes)).toThrow(/fused_coded_linear: needs !residual == !scale/);
  expect(() => call(null, 8, bytes)).toThrow(/fused_coded_linear: needs first/);
  expect(() => call(null, 0, new Uint8Array(7))).toThrow(/fused_coded_linear: needs/);
  expect(() => call(null, 0, bytes)).not.toThrow();
});
