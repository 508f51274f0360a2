import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { fastBackends, on, relativeError, zeros } from "./harness.ts";
import {
  everyBackend,
  forward,
  type Operands,
  operands,
  quantise,
  quantised,
  type Shape,
  scanInDouble,
  shapes,
  titled,
} from "./scan_cases.ts";

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
});

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

// Found by fuzzing: the reference shifted by it. The run under sanitizers is what sees that.
test.each(everyBackend)(
  "without bounds the bits of the state count for nothing on %s",
  (backend) => {
    const s = shapes[1];
    const o = operands(s, 61);
    const [eight, none] = [8, 47].map((bits) =>
      on(backend, () => quantised(s, o, null, bits, null)),
    );
    expect(none).toEqual(eight);
  },
);
