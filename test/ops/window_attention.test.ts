import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import type { F32, U8 } from "../../lib/binding.ts";
import { fastBackends, on, random, relativeError, uniform, zeros } from "./harness.ts";
import { attention, name, type Operands, operands, type Shape, shapes } from "./window_oracle.ts";
import { sameBytes, sizes, tableOf, tokensOf } from "./window_oracle.ts";

const FLOAT = 0;
const UNIFORM = 1;
const HALF = 2;
const bounds = Float32Array.of(0.001, 0.2);
const everywhere = ["reference", ...fastBackends];

function attend(s: Shape, o: Operands, mode = FLOAT, bits = 4, probabilities?: F32): F32 {
  const y = zeros(tokensOf(s));
  const p = probabilities ?? null;
  native().windowAttention(o.q, o.k, o.v, o.table, bounds, y, p, ...sizes(s), mode, bits);
  return y;
}

/** Queries (rows of one head) whose output differs by more than 1e-5 of the largest value. */
function deviatingRows(a: F32, b: F32, headDim: number): { share: number; worst: number } {
  const scale = Math.max(...b.map(Math.abs));
  let rows = 0;
  let worst = 0;
  for (let i = 0; i < b.length; i += headDim) {
    let most = 0;
    for (let d = i; d < i + headDim; d++) most = Math.max(most, Math.abs(a[d] - b[d]) / scale);
    if (most > 1e-5) rows++;
    worst = Math.max(worst, most);
  }
  return { share: (rows * headDim) / b.length, worst };
}

const known = new Map<string, F32>();

/** Runs the reference once per case, not once per backend. */
function reference(label: string, run: () => F32): F32 {
  const found = known.get(label) ?? on("reference", run);
  known.set(label, found);
  return found;
}

describe("the reference of window attention", () => {
  test.each(shapes)(
    "agrees with rolling and partitioning by hand: $height x $width, window $window",
    (s) => {
      const o = operands(s, 11);
      const expected = attention(s, o, (p) => p);
      expect(
        relativeError(
          on("reference", () => attend(s, o)),
          expected,
        ),
      ).toBeLessThan(1e-6);
    },
  );

  test("half-exponent weights are the squared codes over their sum", () => {
    const s = shapes[4];
    const o = operands(s, 12, 2);
    const expected = attention(s, o, (p) => {
      const largest = Math.max(...p);
      const squares = p.map((x) => Math.round(3 * Math.sqrt(x / largest)) ** 2);
      const total = squares.reduce((a, b) => a + b, 0);
      return squares.map((x) => x / total);
    });
    expect(
      relativeError(
        on("reference", () => attend(s, o, HALF, 2)),
        expected,
      ),
    ).toBeLessThan(1e-6);
  });

  test("uniform weights lie on the grid between the bounds", () => {
    const s = shapes[4];
    const o = operands(s, 13);
    const [lower, upper] = bounds;
    const expected = attention(s, o, (p) =>
      p.map((x) => {
        const u = Math.min(Math.max(((x - lower) * 15) / (upper - lower), 0), 15);
        return lower + ((upper - lower) / 15) * Math.round(u);
      }),
    );
    const y = on("reference", () => attend(s, o, UNIFORM, 4));
    expect(relativeError(y, expected)).toBeLessThan(1e-6);
  });
});

describe.each(everywhere)("window attention on %s", (backend) => {
  test("the relative bias of (query 0, key 0), (0, 255), (255, 0) is table row 480, 0, 960", () => {
    const s: Shape = {
      batch: 1,
      height: 16,
      width: 16,
      heads: 1,
      headDim: 2,
      window: 16,
      shift: 0,
    };
    for (const [row, query, key] of [
      [480, 0, 0],
      [0, 0, 255],
      [960, 255, 0],
    ]) {
      const table = zeros(961);
      table[row] = 50; // all the weight of `query` falls on `key`
      const v = random(512, 5);
      const y = on(backend, () => attend(s, { q: zeros(512), k: zeros(512), v, table }));
      expect(y[2 * query]).toBeCloseTo(v[2 * key], 5);
      expect(y[2 * query + 1]).toBeCloseTo(v[2 * key + 1], 5);
    }
  });

  test("a shifted window never mixes pixels from opposite borders", () => {
    const s: Shape = {
      batch: 1,
      height: 16,
      width: 16,
      heads: 1,
      headDim: 1,
      window: 16,
      shift: 8,
    };
    const v = zeros(256).map((_, i) => (i >> 4 < 8 ? 1 : -1)); // +1 in the upper half, -1 below
    const y = on(backend, () => attend(s, { q: zeros(256), k: zeros(256), v, table: zeros(961) }));
    expect(relativeError(y, v)).toBeLessThan(1e-6);
  });

  test("a NaN in a query reaches its output and no other row", () => {
    const s = shapes[2];
    const o = operands(s, 21);
    const whole = on(backend, () => attend(s, o));
    o.q[0] = Number.NaN;
    const y = on(backend, () => attend(s, o));
    expect([...y.subarray(0, 10)].every(Number.isNaN)).toBe(true);
    expect([...y.subarray(10)]).toEqual([...whole.subarray(10)]);
  });
});

describe.each(fastBackends)("window attention on %s against the reference", (backend) => {
  test.each(shapes)(`%j`, (s) => {
    const o = operands(s, 31, 1.5);
    const n = s.batch * s.height * s.width * s.heads * s.window ** 2;
    const [p, expectedP] = [zeros(n), zeros(n)];
    const expected = on("reference", () => attend(s, o, FLOAT, 4, expectedP));
    const y = on(backend, () => attend(s, o, FLOAT, 4, p));
    expect(relativeError(y, expected)).toBeLessThan(1e-5);
    expect(relativeError(p, expectedP)).toBeLessThan(1e-5);
  });

  test.each([
    [UNIFORM, 4],
    [UNIFORM, 8],
    [HALF, 1],
    [HALF, 2],
    [HALF, 4],
    [HALF, 8],
  ])("quantised probabilities, mode %i at %i bits: all but ties", (mode, bits) => {
    for (const s of shapes.slice(0, 5)) {
      const o = operands(s, 41, 1.5);
      const n = s.batch * s.height * s.width * s.heads * s.window ** 2;
      const p = zeros(n);
      const y = on(backend, () => attend(s, o, mode, bits, p));
      const label = `${name(s)} ${mode} ${bits}`;
      const expected = reference(label, () => attend(s, o, mode, bits));
      const expectedP = reference(`softmax of ${name(s)}`, () => {
        const softmax = zeros(n);
        attend(s, o, FLOAT, 4, softmax);
        return softmax;
      });
      const { share, worst } = deviatingRows(y, expected, s.headDim);
      // A logit that rounds the other way moves one code by one: rare, and small.
      expect(share).toBeLessThan(0.005);
      expect(worst).toBeLessThan(0.2);
      expect(relativeError(p, expectedP)).toBeLessThan(1e-5);
    }
  });

  test("one thread and two give the same bits", () => {
    const s: Shape = { ...shapes[0], height: 32, width: 64 };
    const o = operands(s, 51);
    const before = native().threads();
    const [one, two] = [1, 2].map((count) => {
      native().threads(count);
      return on(backend, () => attend(s, o));
    });
    native().threads(before);
    expect(sameBytes(two, one)).toBe(true);
  });
});

interface Codes {
  readonly q: U8;
  readonly k: U8;
  readonly v: U8;
  readonly table: F32;
}
const grid = Float32Array.of(-1.1, 0.9, -1, 1.3, -0.8, 1);

function codes(s: Shape, bits: number, seed: number): Codes {
  const next = uniform(seed);
  const draw = () => Uint8Array.from({ length: tokensOf(s) }, () => Math.floor(next() * 2 ** bits));
  return { q: draw(), k: draw(), v: draw(), table: random(tableOf(s), seed + 3) };
}

function attendCodes(s: Shape, c: Codes, codeBits: number, mode: number, bits: number): F32 {
  const y = zeros(tokensOf(s));
  const a = [...sizes(s), mode, bits, codeBits, 1, 0] as const;
  native().codedWindowAttention(c.q, c.k, c.v, grid, c.table, bounds, y, null, null, null, ...a);
  return y;
}

/** The same, its result quantised by the op itself: granularity 0 of a tensor, 2 of columns. */
function attendToCodes(s: Shape, c: Codes, outBits: number, granularity: number): [U8, U8] {
  const columns = s.heads * s.headDim;
  const lower = random(granularity === 2 ? columns : 1, 91, -0.6, -0.2);
  const upper = Float32Array.of(granularity === 2 ? 0.9 : 0.5);
  const [whole, parts] = [0, 1].map(() => new Uint8Array(tokensOf(s)));
  const a = [...sizes(s), 2, 4, 4, outBits, granularity] as const;
  const kept = [lower, upper, whole] as const;
  native().codedWindowAttention(c.q, c.k, c.v, grid, c.table, null, null, ...kept, ...a);
  const y = attendCodes(s, c, 4, 2, 4);
  const rows = y.length / columns;
  native().quantize(y, lower, upper, parts, rows, columns, granularity, outBits);
  return [whole, parts];
}

describe.each(everywhere)("window attention on codes on %s", (backend) => {
  test.each([
    [4, 0],
    [4, 2],
    [2, 0],
    [1, 2],
  ])("its own quantiser of %i bits, granularity %i, gives the codes of quantize()", (bits, how) => {
    for (const s of shapes) {
      const [whole, parts] = on(backend, () => attendToCodes(s, codes(s, 4, 31), bits, how));
      expect(whole).toEqual(parts);
    }
  });

  test("equals attention on the dequantised values: what depends on the query alone cancels", () => {
    for (const [s, bits] of [
      [shapes[0], 4],
      [shapes[2], 2],
      [shapes[6], 8],
    ] as const) {
      const c = codes(s, bits, 61);
      const value = (x: U8, i: number) =>
        Float32Array.from(x, (q) => grid[i] + ((grid[i + 1] - grid[i]) * q) / (2 ** bits - 1));
      const o = { q: value(c.q, 0), k: value(c.k, 2), v: value(c.v, 4), table: c.table };
      const expected = on("reference", () => attend(s, o));
      const y = on(backend, () => attendCodes(s, c, bits, FLOAT, 4));
      expect(relativeError(y, expected)).toBeLessThan(1e-5);
    }
  });
});

describe.each(fastBackends)("window attention on codes: %s has the reference's bits", (backend) => {
  test.each([
    [FLOAT, 4, 4],
    [UNIFORM, 2, 2],
    [UNIFORM, 4, 4],
    [UNIFORM, 8, 8],
    [HALF, 1, 1],
    [HALF, 2, 2],
    [HALF, 4, 4],
    [HALF, 4, 8],
    [HALF, 8, 4],
    [HALF, 8, 8],
  ])("mode %i, probabilities at %i bits, q, k, v at %i", (mode, bits, codeBits) => {
    for (const s of shapes) {
      const c = codes(s, codeBits, 71);
      const label = `${name(s)} ${mode} ${bits} ${codeBits}`;
      const expected = reference(label, () => attendCodes(s, c, codeBits, mode, bits));
      const y = on(backend, () => attendCodes(s, c, codeBits, mode, bits));
      expect(sameBytes(y, expected), name(s)).toBe(true);
    }
  });

  test.each([1, 2, 4, 8])("every code of %i bits at its top does not overflow", (bits) => {
    for (const s of [shapes[1], shapes[4], shapes[7]]) {
      const c = codes(s, bits, 71);
      for (const x of [c.q, c.k, c.v]) x.fill(2 ** bits - 1);
      c.table.fill(0); // every key is the largest: so is every weight
      const label = `${name(s)} ${bits} at the top`;
      const expected = reference(label, () => attendCodes(s, c, bits, HALF, Math.min(bits, 4)));
      const y = on(backend, () => attendCodes(s, c, bits, HALF, Math.min(bits, 4)));
      expect(sameBytes(y, expected), name(s)).toBe(true);
    }
  });
});

test("a damaged bias gives the same pixels, and NaN in the same places, on every backend", () => {
  const s = shapes[0];
  for (const value of [Number.NaN, Infinity, 3e9]) {
    const c = codes(s, 4, 31);
    c.table[5] = value;
    const expected = on("reference", () => attendCodes(s, c, 4, HALF, 4));
    if (value === Infinity) expect(expected.some(Number.isNaN)).toBe(true);
    for (const backend of fastBackends) {
      expect(
        on(backend, () => attendCodes(s, c, 4, HALF, 4)),
        `${backend} ${value}`,
      ).toEqual(expected);
    }
  }
});
