import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
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
import {
  everyBackend,
  forward,
  gradients,
  type OperandName,
  type Operands,
  operandNames,
  operands,
  type Shape,
  scanInDouble,
  shapes,
  titled,
} from "./scan_cases.ts";
import { differingNames, onThreads } from "./threads.ts";

describe.each(fastBackends)("gradients of the selective scan on %s", (backend) => {
  test.each(titled)("gradients agree with the reference, %s", (_, s) => {
    const o = operands(s, 19);
    const gy = random(o.u.length, 3);
    const expected = on("reference", () => gradients(s, o, gy));
    const actual = on(backend, () => gradients(s, o, gy));
    for (const name of operandNames) {
      expect(relativeError(actual[name], expected[name]), name).toBeLessThan(1e-5);
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

  // Fewer and more threads than samples; 200 channels make groups of more than one vector everywhere.
  test.each([48, 200])("1, 2, 3 and 4 threads give the same bits, %d channels", (channels) => {
    const s: Shape = { batch: 2, length: 70, channels, states: 8 };
    const o = operands(s, 41);
    const gy = random(o.u.length, 43);
    const bounds = Float32Array.from([-0.05, 0.08]);
    const [one, ...more] = [1, 2, 3, 4].map((count) =>
      onThreads(backend, count, () => [
        { y: forward(s, o) },
        gradients(s, o, gy),
        gradients(s, o, gy, bounds, 4),
      ]),
    );
    for (const other of more)
      other.forEach((result, i) => {
        expect(differingNames<Readonly<Record<string, F32>>>(one[i], result)).toEqual([]);
      });
  });
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
