import { describe, expect, test } from "vitest";
import type { F32, U8 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { fastBackends, on, random, relativeError, uniform, zeros } from "./harness.ts";

interface Case {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly kernel: number;
  readonly xBits: number;
  readonly weightBits: number;
  readonly storageBits: number;
  /** x bounds per channel (kColumn), else per tensor. */
  readonly byChannel: boolean;
  /** Weight bounds per channel (kRow), else per tensor. */
  readonly byRow: boolean;
  readonly bias: boolean;
}

const base: Case = {
  batch: 1,
  height: 9,
  width: 11,
  channels: 24,
  kernel: 5,
  xBits: 4,
  weightBits: 4,
  storageBits: 4,
  byChannel: false,
  byRow: false,
  bias: true,
};

const cases: readonly Partial<Case>[] = [
  {},
  { height: 1, width: 1, channels: 1, kernel: 3 },
  { height: 2, width: 3, channels: 19, byChannel: true },
  { height: 4, width: 1, channels: 7, xBits: 2, weightBits: 2, storageBits: 2 },
  { height: 3, width: 4, channels: 3, kernel: 5, byRow: true, bias: false },
  { batch: 2, height: 35, width: 6, byChannel: true, byRow: true },
  { channels: 48, kernel: 3, xBits: 2, weightBits: 2, storageBits: 2, byRow: true },
  { channels: 16, kernel: 3, xBits: 1, weightBits: 1, storageBits: 1, byChannel: true },
  { channels: 17, xBits: 8, weightBits: 8, storageBits: 8, byRow: true },
  { channels: 33, xBits: 8, weightBits: 4, storageBits: 4, byChannel: true },
  { channels: 24, xBits: 4, weightBits: 8, storageBits: 8 },
  { channels: 5, weightBits: 3, storageBits: 3, byRow: true },
  { batch: 3, channels: 48, xBits: 4, weightBits: 4, storageBits: 8, kernel: 3 },
];

function title(change: Partial<Case>): string {
  return Object.keys(change).length === 0 ? "the base case" : JSON.stringify(change);
}

interface Data {
  readonly x: U8;
  readonly codes: U8;
  readonly weight: U8;
  readonly xLower: F32;
  readonly xUpper: F32;
  readonly weightLower: F32;
  readonly weightUpper: F32;
  readonly bias: F32 | null;
}

/** Each channel's kernel*kernel codes start on a byte, little-endian within the byte. */
function pack(codes: U8, c: Case): U8 {
  const taps = c.kernel * c.kernel;
  const stride = Math.ceil((taps * c.storageBits) / 8);
  const packed = new Uint8Array(c.channels * stride);
  for (let channel = 0; channel < c.channels; channel++) {
    for (let bit = 0; bit < taps * c.storageBits; bit++) {
      const tap = Math.floor(bit / c.storageBits);
      const value = (codes[channel * taps + tap] >> (bit % c.storageBits)) & 1;
      packed[channel * stride + (bit >> 3)] |= value << (bit & 7);
    }
  }
  return packed;
}

function data(c: Case, seed: number): Data {
  const next = uniform(seed);
  const draw = (n: number, bits: number): U8 =>
    Uint8Array.from({ length: n }, () => Math.floor(next() * 2 ** bits));
  const codes = draw(c.channels * c.kernel * c.kernel, c.weightBits);
  const rows = c.byRow ? c.channels : 1;
  return {
    x: draw(c.batch * c.height * c.width * c.channels, c.xBits),
    codes,
    weight: pack(codes, c),
    xLower: random(c.byChannel ? c.channels : 1, seed + 1, -2, -0.5),
    xUpper: random(1, seed + 2, 0.5, 2),
    weightLower: random(rows, seed + 3, -1, -0.2),
    weightUpper: random(rows, seed + 4, 0.2, 1),
    bias: c.bias ? random(c.channels, seed + 5) : null,
  };
}

function run(c: Case, d: Data): F32 {
  const y = zeros(d.x.length);
  native().codedDepthwiseConv(
    d.x,
    d.weight,
    d.xLower,
    d.xUpper,
    d.weightLower,
    d.weightUpper,
    d.bias,
    y,
    c.batch,
    c.height,
    c.width,
    c.channels,
    c.kernel,
    c.xBits,
    c.weightBits,
    c.byChannel ? 2 : 0,
    c.byRow ? 1 : 0,
    c.storageBits,
  );
  return y;
}

/** The op that multiplies by `factor` and hands on codes, and its parts. */
function runToCodes(c: Case, d: Data, granularity: number): [U8, U8] {
  const factor = random(d.x.length, 71);
  const lower = random(granularity === 2 ? c.channels : 1, 72, -1.2, -0.3);
  const upper = Float32Array.of(granularity === 2 ? 2 : 0.7);
  const [whole, parts] = [new Uint8Array(d.x.length), new Uint8Array(d.x.length)];
  const sides = [c.batch, c.height, c.width, c.channels, c.kernel] as const;
  const kinds = [c.xBits, c.weightBits, c.byChannel ? 2 : 0, c.byRow ? 1 : 0] as const;
  native().fusedCodedDepthwiseConv(
    ...([d.x, d.weight, d.xLower, d.xUpper, d.weightLower, d.weightUpper, d.bias] as const),
    ...([factor, lower, upper, whole, ...sides, ...kinds, c.storageBits] as const),
    ...([c.xBits, granularity] as const),
  );
  const y = run(c, d);
  native().multiply(y, factor, y, y.length);
  const rows = y.length / c.channels;
  native().quantize(y, lower, upper, parts, rows, c.channels, granularity, c.xBits);
  return [whole, parts];
}

/** The values behind the codes, convolved by the float op of the reference. */
function onValues(c: Case, d: Data): F32 {
  const xLevels = 2 ** c.xBits - 1;
  const range = c.byChannel ? d.xUpper[0] : d.xUpper[0] - d.xLower[0];
  const x = Float32Array.from(d.x, (q, i) => {
    return d.xLower[c.byChannel ? i % c.channels : 0] + (range / xLevels) * q;
  });
  const taps = c.kernel * c.kernel;
  const weight = Float32Array.from(d.codes, (q, i) => {
    const row = c.byRow ? Math.floor(i / taps) : 0;
    const step = (d.weightUpper[row] - d.weightLower[row]) / (2 ** c.weightBits - 1);
    return d.weightLower[row] + step * q;
  });
  const y = zeros(x.length);
  native().depthwiseConv(x, weight, d.bias, y, c.batch, c.height, c.width, c.channels, c.kernel);
  return y;
}

const full = cases.map((change) => [title(change), { ...base, ...change }] as const);

describe("the coded depth-wise convolution", () => {
  test.each(full)("equals the convolution of the values behind the codes, %s", (_, c) => {
    const d = data(c, 77);
    const expected = on("reference", () => onValues(c, d));
    expect(
      relativeError(
        on("reference", () => run(c, d)),
        expected,
      ),
    ).toBeLessThan(2e-6);
  });

  describe.each(fastBackends)("on %s", (backend) => {
    test.each(full)("returns the reference's bits, %s", (_, c) => {
      const d = data(c, 91);
      const expected = on("reference", () => run(c, d));
      expect(on(backend, () => run(c, d))).toEqual(expected);
    });

    test("does not overflow where every code is the largest", () => {
      for (const bits of [1, 2, 3, 4, 5, 6, 7, 8]) {
        const c = { ...base, channels: 19, xBits: bits, weightBits: bits, storageBits: bits };
        const d = data(c, 5);
        d.x.fill(2 ** bits - 1);
        d.weight.set(pack(d.codes.fill(2 ** bits - 1), c));
        expect(on(backend, () => run(c, d))).toEqual(on("reference", () => run(c, d)));
      }
    });

    test("one thread and two threads give the same bits", () => {
      const c = { ...base, batch: 2, height: 40 };
      const d = data(c, 3);
      const before = native().threads();
      const withThreads = (count: number): F32 => {
        native().threads(count);
        return on(backend, () => run(c, d));
      };
      try {
        expect(withThreads(2)).toEqual(withThreads(1));
      } finally {
        native().threads(before);
      }
    });
  });
});

describe.each([...fastBackends, "reference"])("multiplied and quantised on %s", (backend) => {
  test.each(cases.map((change) => [title(change), change] as const))(
    "%s: the codes of its parts",
    (_, change) => {
      const c = { ...base, ...change };
      for (const granularity of [0, 2]) {
        const [whole, parts] = on(backend, () => runToCodes(c, data(c, 61), granularity));
        expect(whole).toEqual(parts);
      }
    },
  );
});
