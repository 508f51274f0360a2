import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import type { F32 } from "../../lib/binding.ts";
import { dot, fastBackends, finiteDifferenceError, on, random } from "./harness.ts";
import { relativeError, zeros } from "./harness.ts";
import { attention, type Operands, operands, type Shape, shapes } from "./window_oracle.ts";
import { sameBytes, sizes, tableOf, tokensOf } from "./window_oracle.ts";

const FLOAT = 0;
const UNIFORM = 1;
const HALF = 2;

interface Gradients {
  readonly q: F32;
  readonly k: F32;
  readonly v: F32;
  readonly table: F32;
  readonly bounds: F32;
}

function gradients(
  s: Shape,
  o: Operands,
  gy: F32,
  mode = FLOAT,
  bits = 4,
  bounds?: F32,
): Gradients {
  const n = tokensOf(s);
  const g = { q: zeros(n), k: zeros(n), v: zeros(n), table: zeros(tableOf(s)), bounds: zeros(2) };
  const { q, k, v, table } = o;
  const b = bounds ?? null;
  const a = [...sizes(s), mode, bits] as const;
  native().windowAttentionGrad(q, k, v, table, b, gy, g.q, g.k, g.v, g.table, g.bounds, ...a);
  return g;
}

/** Everything differentiated but the output's own rounding: `loss` by central differences. */
function compare(loss: () => number, o: Operands, g: Gradients, wanted: readonly string[]): number {
  let worst = 0;
  for (const key of ["q", "k", "v", "table"] as const) {
    if (!wanted.includes(key)) continue;
    const step = Math.max(1, Math.floor(o[key].length / 40));
    const positions = Array.from({ length: o[key].length }, (_, i) => i).filter(
      (i) => i % step === 0,
    );
    worst = Math.max(worst, finiteDifferenceError(loss, o[key], g[key], positions, 1e-3));
  }
  return worst;
}

const small: Shape = { batch: 2, height: 6, width: 3, heads: 2, headDim: 4, window: 3, shift: 1 };

describe("gradients of window attention, reference against central differences", () => {
  test("float: q, k, v and the bias table", () => {
    const o = operands(small, 1);
    const gy = random(tokensOf(small), 9);
    const g = on("reference", () => gradients(small, o, gy));
    const loss = () =>
      dot(
        attention(small, o, (p) => p),
        gy,
      );
    expect(compare(loss, o, g, ["q", "k", "v", "table"])).toBeLessThan(1e-4);
  });

  test("uniform codes: every operand and both bounds, with the rounding residual frozen", () => {
    const o = operands(small, 2);
    const gy = random(tokensOf(small), 9);
    const bounds = Float32Array.of(0.06, 0.2); // some probabilities below, some above
    const levels = 15;
    const clip = (x: number) => Math.min(Math.max(x, bounds[0]), bounds[1]);
    const residual: number[][] = [];
    attention(small, o, (p, row) => {
      residual[row] = p.map((x) => {
        const u = ((clip(x) - bounds[0]) * levels) / (bounds[1] - bounds[0]);
        return (Math.round(u) - u) / levels;
      });
      return p;
    });
    const loss = () =>
      dot(
        attention(small, o, (p, row) =>
          p.map((x, j) => clip(x) + (bounds[1] - bounds[0]) * residual[row][j]),
        ),
        gy,
      );
    const kept = Float32Array.from(bounds);
    const g = on("reference", () => gradients(small, o, gy, UNIFORM, 4, kept));
    expect(compare(loss, o, g, ["q", "k", "v", "table"])).toBeLessThan(1e-4);
    expect(finiteDifferenceError(loss, bounds, g.bounds, [0, 1], 1e-5)).toBeLessThan(1e-3);
  });

  test("half-exponent codes: v exactly, q, k and the table as for the plain softmax", () => {
    const o = operands(small, 3);
    const gy = random(tokensOf(small), 9);
    const g = on("reference", () => gradients(small, o, gy, HALF, 2));
    const y = zeros(tokensOf(small));
    const loss = () => {
      native().windowAttention(o.q, o.k, o.v, o.table, null, y, null, ...sizes(small), HALF, 2);
      return dot(y, gy);
    };
    expect(on("reference", () => compare(loss, o, g, ["v"]))).toBeLessThan(1e-3);
    const plain = on("reference", () => gradients(small, o, gy));
    expect(g.q).toEqual(plain.q);
    expect(g.k).toEqual(plain.k);
    expect(g.table).toEqual(plain.table);
    expect(relativeError(g.v, plain.v)).toBeGreaterThan(1e-3);
  });
});

describe.each(fastBackends)(
  "gradients of window attention on %s against the reference",
  (backend) => {
    test.each(shapes.filter((_, i) => i !== 1))("float: %j", (s) => {
      const o = operands(s, 31, 1.5);
      const gy = random(tokensOf(s), 9);
      const expected = on("reference", () => gradients(s, o, gy));
      const g = on(backend, () => gradients(s, o, gy));
      for (const key of ["q", "k", "v", "table"] as const) {
        // One key has no gradient through its softmax: only rounding is left there.
        if (s.window > 1 || key === "v")
          expect(relativeError(g[key], expected[key])).toBeLessThan(1e-5);
      }
    });

    test.each([
      [UNIFORM, 4],
      [HALF, 4],
      [HALF, 1],
    ])("mode %i at %i bits", (mode, bits) => {
      for (const s of [shapes[2], shapes[4], shapes[5]]) {
        const o = operands(s, 41, 1.5);
        const gy = random(tokensOf(s), 9);
        const bounds = Float32Array.of(0.004, 0.3);
        const expected = on("reference", () => gradients(s, o, gy, mode, bits, bounds));
        const g = on(backend, () => gradients(s, o, gy, mode, bits, bounds));
        for (const key of ["q", "k", "table"] as const) {
          expect(relativeError(g[key], expected[key])).toBeLessThan(2e-5);
        }
        // P itself is rounded: a tie that falls the other way moves one weight by one code.
        expect(relativeError(g.v, expected.v)).toBeLessThan(0.05);
        const off = g.v.filter((x, i) => Math.abs(x - expected.v[i]) > 1e-4).length;
        expect(off / g.v.length).toBeLessThan(0.02);
        if (mode === UNIFORM) expect(relativeError(g.bounds, expected.bounds)).toBeLessThan(1e-3);
      }
    });

    test("one thread and two give the same bits", () => {
      const s: Shape = { ...shapes[2], height: 40, width: 24 };
      const o = operands(s, 51);
      const gy = random(tokensOf(s), 9);
      const before = native().threads();
      const [one, two] = [1, 2].map((count) => {
        native().threads(count);
        return on(backend, () => gradients(s, o, gy, UNIFORM, 4, Float32Array.of(0.01, 0.1)));
      });
      native().threads(before);
      for (const key of ["q", "k", "v", "table", "bounds"] as const) {
        expect(sameBytes(two[key], one[key])).toBe(true);
      }
    });
  },
);
