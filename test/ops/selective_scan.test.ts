import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import { hasTestData } from "../data.ts";
import {
  dot,
  fastBackends,
  finiteDifferenceError,
  golden,
  on,
  random,
  relativeError,
  zeros,
} from "./harness.ts";

interface Shape {
  readonly batch: number;
  readonly length: number;
  readonly channels: number;
  readonly states: number;
}

interface Operands {
  readonly u: F32;
  readonly delta: F32;
  readonly A: F32;
  readonly B: F32;
  readonly C: F32;
  readonly D: F32;
  readonly deltaBias: F32;
}

const operandNames = ["u", "delta", "A", "B", "C", "D", "deltaBias"] as const;
type OperandName = (typeof operandNames)[number];

/** Vector widths 4, 8 and 16 and their remainders; chunk lengths of the gradient and beside. */
const shapes: readonly Shape[] = [
  { batch: 1, length: 1, channels: 1, states: 1 },
  { batch: 2, length: 17, channels: 5, states: 3 },
  { batch: 1, length: 33, channels: 19, states: 8 },
  { batch: 3, length: 64, channels: 24, states: 8 },
  { batch: 1, length: 131, channels: 48, states: 8 },
  { batch: 1, length: 40, channels: 67, states: 16 },
  { batch: 1, length: 7, channels: 150, states: 2 },
];

const title = (s: Shape): string => `${s.batch}x${s.length}x${s.channels}, ${s.states} states`;

/** Step sizes and rates as in trained networks: Delta around 0.05 ... 0.7, A in -8 ... -0.5. */
function operands(s: Shape, seed: number): Operands {
  const rows = s.batch * s.length;
  return {
    u: random(rows * s.channels, seed),
    delta: random(rows * s.channels, seed + 1, -2, 2),
    A: random(s.channels * s.states, seed + 2, -8, -0.5),
    B: random(rows * s.states, seed + 3),
    C: random(rows * s.states, seed + 4),
    D: random(s.channels, seed + 5),
    deltaBias: random(s.channels, seed + 6, -3, -1),
  };
}

function forward(s: Shape, o: Operands, states: F32 | null = null): F32 {
  return quantised(s, o, null, 0, states);
}

function quantised(s: Shape, o: Operands, bounds: F32 | null, bits: number, states: F32 | null) {
  const y = zeros(o.u.length);
  native().selectiveScan(
    ...operandsInOrder(o),
    bounds,
    y,
    states,
    s.batch,
    s.length,
    s.channels,
    s.states,
    bits,
  );
  return y;
}

function operandsInOrder(o: Operands): [F32, F32, F32, F32, F32, F32, F32] {
  return [o.u, o.delta, o.A, o.B, o.C, o.D, o.deltaBias];
}

interface Gradients extends Operands {
  readonly bounds: F32;
}

function gradients(s: Shape, o: Operands, gy: F32, bounds: F32 | null = null, bits = 0): Gradients {
  const g = Object.fromEntries(operandNames.map((n) => [n, zeros(o[n].length).fill(Number.NaN)]));
  const all = { ...(g as Record<OperandName, F32>), bounds: zeros(2) };
  native().selectiveScanGrad(
    ...operandsInOrder(o),
    bounds,
    gy,
    ...operandsInOrder(all),
    bounds ? all.bounds : null,
    s.batch,
    s.length,
    s.channels,
    s.states,
    bits,
  );
  return all;
}

/**
 * The scan in double, with the quantised copy as its smooth surrogate: clip(h) plus the residual
 * (q - u) * step, frozen. `visit` gives the copy of h that meets C.
 */
function scanInDouble(
  s: Shape,
  o: Record<OperandName, ArrayLike<number>>,
  copy: (h: number, index: number) => number,
): Float64Array {
  const y = new Float64Array(s.batch * s.length * s.channels);
  const h = new Float64Array(s.channels * s.states);
  for (let row = 0; row < s.batch * s.length; row++) {
    if (row % s.length === 0) h.fill(0);
    for (let c = 0; c < s.channels; c++) {
      const i = row * s.channels + c;
      const delta = Math.log1p(Math.exp(o.delta[i] + o.deltaBias[c]));
      y[i] = o.D[c] * o.u[i];
      for (let k = 0; k < s.states; k++) {
        const at = c * s.states + k;
        h[at] = Math.exp(delta * o.A[at]) * h[at] + delta * o.B[row * s.states + k] * o.u[i];
        y[i] += o.C[row * s.states + k] * copy(h[at], i * s.states + k);
      }
    }
  }
  return y;
}

/** Eq. 1 in float32, as ops.hpp orders it. */
function quantise(h: number, lower: number, upper: number, bits: number): number {
  const { fround } = Math;
  const levels = 2 ** bits - 1;
  const inverse = fround(levels / fround(upper - lower));
  const u = Math.min(Math.max(fround(fround(h - lower) * inverse), 0), levels);
  const down = Math.floor(u);
  const odd = down % 2 === 1 ? down + 1 : down;
  const code = u - down === 0.5 ? odd : Math.round(u);
  return fround(fround(fround(upper - lower) / levels) * code + lower);
}

const titled = shapes.map((s) => [title(s), s] as const);

describe.each(fastBackends)("selective scan on %s", (backend) => {
  test.each(titled)("forward and states agree with the reference, %s", (_, s) => {
    const o = operands(s, 7);
    const run = (): readonly F32[] => {
      const states = zeros(o.u.length * s.states);
      return [forward(s, o), forward(s, o, states), states];
    };
    const expected = on("reference", run);
    const actual = on(backend, run);
    for (const [i, values] of expected.entries()) {
      expect(relativeError(actual[i], values)).toBeLessThan(2e-6);
    }
  });

  test.each(titled)("gradients agree with the reference, %s", (_, s) => {
    const o = operands(s, 19);
    const gy = random(o.u.length, 3);
    const expected = on("reference", () => gradients(s, o, gy));
    const actual = on(backend, () => gradients(s, o, gy));
    for (const name of operandNames) {
      expect(relativeError(actual[name], expected[name]), name).toBeLessThan(1e-5);
    }
  });

  test("softplus is accurate to 1e-6 of its value from -80 to 80", () => {
    const s: Shape = { batch: 641, length: 1, channels: 1, states: 1 };
    const ones = (n: number): F32 => zeros(n).fill(1);
    const delta = Float32Array.from({ length: s.batch }, (_, i) => (i - 320) / 4);
    const o: Operands = {
      u: ones(s.batch),
      delta,
      A: Float32Array.from([-1]), // sequences of one step: y is the step size itself
      B: ones(s.batch),
      C: ones(s.batch),
      D: zeros(1),
      deltaBias: zeros(1),
    };
    const y = on(backend, () => forward(s, o));
    const worst = Math.max(
      ...y.map((value, i) => Math.abs(value / Math.log1p(Math.exp(delta[i])) - 1)),
    );
    expect(worst).toBeLessThan(1e-6);
  });

  test("the quantised copy is Eq. 1 of the unquantised state, and the recurrence stays float", () => {
    for (const [bits, seed] of [
      [8, 1],
      [4, 2],
      [2, 3],
      [1, 4],
    ]) {
      const s: Shape = { batch: 2, length: 50, channels: 19, states: 8 };
      const o = operands(s, seed);
      const bounds = Float32Array.from([-0.11, 0.17]);
      const states = zeros(o.u.length * s.states);
      const y = on(backend, () => quantised(s, o, bounds, bits, states));
      const plain = zeros(states.length);
      on(backend, () => forward(s, o, plain));
      expect(states).toEqual(plain);
      const copies = states.map((h) => quantise(h, bounds[0], bounds[1], bits));
      const expected = scanInDouble(s, o, (_, index) => copies[index]);
      expect(relativeError(y, expected)).toBeLessThan(2e-6);
    }
  });

  test("gradients through the quantised copy agree with the reference", () => {
    for (const s of [shapes[1], shapes[3]]) {
      const o = operands(s, 29);
      const gy = random(o.u.length, 31);
      const bounds = Float32Array.from([-0.05, 0.08]);
      for (const bits of [4, 1]) {
        const expected = on("reference", () => gradients(s, o, gy, bounds, bits));
        const actual = on(backend, () => gradients(s, o, gy, bounds, bits));
        for (const name of [...operandNames, "bounds"] as const) {
          expect(relativeError(actual[name], expected[name]), name).toBeLessThan(1e-5);
        }
      }
    }
  });

  test("one thread and two threads give the same bits", () => {
    const s: Shape = { batch: 2, length: 70, channels: 48, states: 8 };
    const o = operands(s, 41);
    const gy = random(o.u.length, 43);
    const bounds = Float32Array.from([-0.05, 0.08]);
    const before = native().threads();
    const all = (count: number): readonly unknown[] =>
      on(backend, () => {
        native().threads(count);
        return [forward(s, o), gradients(s, o, gy), gradients(s, o, gy, bounds, 4)];
      });
    try {
      expect(all(2)).toEqual(all(1));
    } finally {
      native().threads(before);
    }
  });
});

const everyBackend = [...fastBackends, "reference"];

test.each(everyBackend)("the worked example of two states and three steps, %s", (backend) => {
  const s: Shape = { batch: 1, length: 3, channels: 1, states: 2 };
  const o: Operands = {
    u: Float32Array.from([1, -2, 0.5]),
    delta: Float32Array.from([0.1, -1, 2]),
    A: Float32Array.from([-1, -2]),
    B: Float32Array.from([1, 0.5, -1, 2, 0.25, -0.5]),
    C: Float32Array.from([1, 1, 0.5, -1, 2, 0.25]),
    D: Float32Array.from([0.7]),
    deltaBias: Float32Array.from([0]),
  };
  const states = zeros(6);
  const y = on(backend, () => forward(s, o, states));
  expect(relativeError(y, [1.81659499, 0.239487071, 1.024161106])).toBeLessThan(5e-7);
  expect(relativeError(states.subarray(4), [0.40541936, -0.54671044])).toBeLessThan(5e-7);
});

describe("gradients of the reference scan", () => {
  const s: Shape = { batch: 2, length: 9, channels: 3, states: 4 };
  const o = operands(s, 53);
  const gy = random(o.u.length, 59);
  const some = (n: number): readonly number[] => Array.from({ length: 15 }, (_, i) => (i * 31) % n);

  test("match central differences of the float op", () => {
    on("reference", () => {
      const g = gradients(s, o, gy);
      const loss = (): number => dot(forward(s, o), gy);
      for (const name of operandNames) {
        const error = finiteDifferenceError(loss, o[name], g[name], some(o[name].length), 4e-3);
        expect(error, name).toBeLessThan(2e-3);
      }
    });
  });

  test.each([4, 2, 1])("match the smooth surrogate with the state at %i bit", (bits) => {
    const bounds = Float32Array.from([-0.04, 0.06]);
    const g = on("reference", () => gradients(s, o, gy, bounds, bits));
    const levels = 2 ** bits - 1;
    const residual = new Map<number, number>(); // (q - u) / levels, frozen at the first run
    const lossOf = (values: Record<OperandName, ArrayLike<number>>, lower: number, upper: number) =>
      dot(
        scanInDouble(s, values, (h, index) => {
          const clipped = Math.min(Math.max(h, lower), upper);
          const u = ((clipped - lower) * levels) / (upper - lower);
          if (!residual.has(index)) residual.set(index, (Math.round(u) - u) / levels);
          return clipped + (residual.get(index) ?? 0) * (upper - lower);
        }),
        gy,
      );
    lossOf(o, bounds[0], bounds[1]);
    const step = 1e-6;
    for (const name of operandNames) {
      for (const i of some(o[name].length)) {
        const slope = [1, -1].map((sign) => {
          const moved = Float64Array.from(o[name]);
          moved[i] += sign * step;
          return lossOf({ ...o, [name]: moved }, bounds[0], bounds[1]);
        });
        expect((slope[0] - slope[1]) / (2 * step), name).toBeCloseTo(g[name][i], 4);
      }
    }
    const [lower, upper] = bounds;
    const byLower = lossOf(o, lower + step, upper) - lossOf(o, lower - step, upper);
    const byUpper = lossOf(o, lower, upper + step) - lossOf(o, lower, upper - step);
    expect(byLower / (2 * step)).toBeCloseTo(g.bounds[0], 3);
    expect(byUpper / (2 * step)).toBeCloseTo(g.bounds[1], 3);
  });

  test("a state on a bound passes its gradient and feeds the bound", () => {
    const one: Shape = { batch: 1, length: 1, channels: 1, states: 1 };
    const values = (x: number): F32 => Float32Array.from([x]);
    const operand: Operands = {
      u: values(2),
      delta: values(25), // softplus is the identity here: h = 25 * 0.5 * 2
      A: values(-1),
      B: values(0.5),
      C: values(3),
      D: values(0),
      deltaBias: values(0),
    };
    for (const backend of everyBackend) {
      const g = on(backend, () =>
        gradients(one, operand, values(1), Float32Array.from([-25, 25]), 4),
      );
      expect([...g.bounds]).toEqual([0, 3]);
      expect(g.u[0]).toBeCloseTo(37.5, 4);
      const h = on(backend, () =>
        gradients(one, operand, values(1), Float32Array.from([25, 50]), 4),
      );
      expect([...h.bounds]).toEqual([3, 0]);
      expect(h.u[0]).toBeCloseTo(37.5, 4);
    }
  });
});

/** (batch, rows, columns) -> (batch, columns, rows). */
function swap(x: F32, [batch, rows, columns]: readonly number[]): F32 {
  const y = zeros(x.length);
  for (let b = 0; b < batch; b++) {
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++)
        y[(b * columns + c) * rows + r] = x[(b * rows + r) * columns + c];
    }
  }
  return y;
}

describe.skipIf(!hasTestData)("goldens computed in float64", () => {
  const backends = ["small", "long", "block"].flatMap((n) => everyBackend.map((b) => [n, b]));
  test.each(backends)("selective_scan_%s on %s", (name, backend) => {
    const file = golden(`golden/ops/selective_scan_${name}.safetensors`);
    const take = (key: string): F32 => {
      const tensor = file.get(key);
      if (!tensor) throw new Error(`no ${key} in the golden`);
      return tensor.shape.length === 3 ? swap(tensor.data, tensor.shape) : tensor.data;
    };
    const [batch, channels, length] = file.get("u")?.shape ?? [];
    const states = file.get("A")?.shape[1] ?? 0;
    const s: Shape = { batch, length, channels, states };
    const keys: Record<OperandName, string> = {
      u: "u",
      delta: "delta",
      A: "A",
      B: "B",
      C: "C",
      D: "D",
      deltaBias: "delta_bias",
    };
    const o = Object.fromEntries(
      operandNames.map((n) => [n, take(keys[n])]),
    ) as unknown as Operands;
    expect(
      relativeError(
        on(backend, () => forward(s, o)),
        take("y"),
      ),
    ).toBeLessThan(1e-5);
    const g = on(backend, () => gradients(s, o, take("grad_y")));
    for (const n of operandNames) {
      expect(relativeError(g[n], take(`grad_${keys[n]}`)), n).toBeLessThan(1e-5);
    }
  });
});
