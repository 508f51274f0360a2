/**
 * Shapes that only the CUDA kernels treat apart: sequences of many chunks, more chunks than a warp
 * has lanes, heads of more than one half, windows that the tensor-core kernel leaves to another.
 */
import { describe, expect, test } from "vitest";
import { native, type U8 } from "../../lib/binding.ts";
import { on, random, relativeError, uniform, zeros } from "../ops/harness.ts";
import {
  forward,
  gradients,
  operandNames,
  operands,
  quantise,
  quantised,
  scanInDouble,
  type Shape,
  title,
} from "../ops/scan_cases.ts";
import { differingNames } from "../ops/threads.ts";
import { sameBytes, sizes, tableOf, tokensOf, type Shape as Window } from "../ops/window_oracle.ts";

const backend = native().backends().includes("cuda-shim") ? "cuda-shim" : undefined;

describe.skipIf(!backend)("many chunks (npm run test:cuda)", () => {
  const cuda = backend as string;
  const shapes: readonly Shape[] = [
    { batch: 2, length: 1000, channels: 5, states: 8 },
    { batch: 1, length: 9000, channels: 3, states: 2 }, // more chunks than lanes, several spans
    { batch: 1, length: 200, channels: 150, states: 5 }, // several blocks of channels
    { batch: 1, length: 129, channels: 2, states: 64 }, // 16 lanes a channel
  ];

  test.each(shapes.map((s) => [title(s), s] as const))("scan and gradients, %s", (_, s) => {
    const o = operands(s, 3);
    o.A.fill(-0.05, 0, s.states); // one channel remembers far beyond its chunk
    const gy = random(o.u.length, 5);
    const y = on(cuda, () => forward(s, o));
    expect(
      relativeError(
        y,
        on("reference", () => forward(s, o)),
      ),
    ).toBeLessThan(5e-6);
    const expected = on("reference", () => gradients(s, o, gy));
    const got = on(cuda, () => gradients(s, o, gy));
    for (const name of operandNames) {
      expect(relativeError(got[name], expected[name]), name).toBeLessThan(1e-5);
    }
    expect(differingNames({ ...on(cuda, () => gradients(s, o, gy)) }, { ...got })).toEqual([]);
  });

  test("a quantised copy of the state over many chunks, forward and backward", () => {
    const s: Shape = { batch: 1, length: 700, channels: 4, states: 8 };
    const o = operands(s, 8);
    const bounds = Float32Array.of(-0.3, 0.4);
    const [states, gy] = [zeros(o.u.length * s.states), random(o.u.length, 6)];
    const y = on(cuda, () => quantised(s, o, bounds, 8, states));
    const copies = states.map((h) => quantise(h, bounds[0], bounds[1], 8));
    expect(
      relativeError(
        y,
        scanInDouble(s, o, (_, i) => copies[i]),
      ),
    ).toBeLessThan(5e-6);
    const expected = on("reference", () => gradients(s, o, gy, bounds, 8));
    const got = on(cuda, () => gradients(s, o, gy, bounds, 8));
    for (const name of [...operandNames, "bounds"] as const) {
      // A state that rounds the other way moves its copy by one step of 255.
      expect(relativeError(got[name], expected[name]), name).toBeLessThan(2e-3);
    }
  });
});

describe.skipIf(!backend)("attention on codes (npm run test:cuda)", () => {
  const grid = Float32Array.of(-1.1, 0.9, -1, 1.3, -0.8, 1);
  const bounds = Float32Array.of(0.001, 0.2);
  const windows: readonly Window[] = [
    { batch: 1, height: 8, width: 8, heads: 1, headDim: 20, window: 8, shift: 4 },
    { batch: 1, height: 8, width: 8, heads: 2, headDim: 33, window: 8, shift: 0 },
    { batch: 1, height: 8, width: 16, heads: 1, headDim: 64, window: 8, shift: 3 },
    { batch: 1, height: 5, width: 10, heads: 3, headDim: 7, window: 5, shift: 2 },
    { batch: 1, height: 24, width: 24, heads: 1, headDim: 12, window: 24, shift: 0 },
  ];

  test.each(
    windows.flatMap((s) => [1, 2, 4].map((bits) => [s.window, s.headDim, bits, s] as const)),
  )("window %i, head of %i, half exponents at %i bits: the reference's bits", (_w, _d, bits, s) => {
    const next = uniform(bits);
    const draw = (): U8 =>
      Uint8Array.from({ length: tokensOf(s) }, () => Math.floor(next() * 2 ** 4));
    const [q, k, v, table] = [draw(), draw(), draw(), random(tableOf(s), 9)];
    const run = () => {
      const y = zeros(tokensOf(s));
      native().codedWindowAttention(
        q,
        k,
        v,
        grid,
        table,
        bounds,
        y,
        null,
        null,
        null,
        ...sizes(s),
        2,
        bits,
        4,
        1,
        0,
      );
      return y;
    };
    expect(sameBytes(on(backend as string, run), on("reference", run))).toBe(true);
  });
});
