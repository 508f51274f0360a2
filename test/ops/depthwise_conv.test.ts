import { describe, expect, test } from "vitest";
import type { F32 } from "../../binding.d.ts";
import { native } from "../../lib/binding.ts";
import {
  dot,
  fastBackends,
  finiteDifferenceError,
  on,
  random,
  relativeError,
  zeros,
} from "./harness.ts";

interface Shape {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly kernel: number;
}

/** Vector widths 4, 8 and 16, their remainders, and images smaller than the kernel. */
const shapes: readonly Shape[] = [
  { batch: 1, height: 1, width: 1, channels: 1, kernel: 3 },
  { batch: 1, height: 1, width: 1, channels: 1, kernel: 5 },
  { batch: 2, height: 2, width: 3, channels: 19, kernel: 5 },
  { batch: 1, height: 3, width: 2, channels: 5, kernel: 5 },
  { batch: 2, height: 7, width: 13, channels: 24, kernel: 5 },
  { batch: 1, height: 19, width: 17, channels: 48, kernel: 3 },
  { batch: 3, height: 5, width: 23, channels: 3, kernel: 3 },
  { batch: 1, height: 16, width: 16, channels: 61, kernel: 5 },
];

const title = (s: Shape): string =>
  `${s.batch}x${s.height}x${s.width}x${s.channels}, kernel ${s.kernel}`;

function inputs(s: Shape, seed: number): { x: F32; weight: F32; bias: F32; gy: F32 } {
  const size = s.batch * s.height * s.width * s.channels;
  return {
    x: random(size, seed),
    weight: random(s.channels * s.kernel * s.kernel, seed + 1),
    bias: random(s.channels, seed + 2),
    gy: random(size, seed + 3),
  };
}

function forward(s: Shape, x: F32, weight: F32, bias: F32 | null): F32 {
  const y = zeros(x.length);
  native().depthwiseConv(x, weight, bias, y, s.batch, s.height, s.width, s.channels, s.kernel);
  return y;
}

/** x gated by the sigmoid of its own convolution: the op, and its parts. */
function gated(s: Shape, x: F32, weight: F32, bias: F32 | null): [F32, F32] {
  const [whole, parts] = [zeros(x.length), zeros(x.length)];
  const sides = [s.batch, s.height, s.width, s.channels, s.kernel] as const;
  native().gatedDepthwiseConv(x, weight, bias, whole, ...sides);
  native().sigmoidGate(x, forward(s, x, weight, bias), parts, x.length);
  return [whole, parts];
}

function gradInput(s: Shape, gy: F32, weight: F32): F32 {
  const gx = zeros(gy.length);
  native().depthwiseConvGradInput(gy, weight, gx, s.batch, s.height, s.width, s.channels, s.kernel);
  return gx;
}

function gradWeight(s: Shape, gy: F32, x: F32): { gweight: F32; gbias: F32 } {
  const gweight = zeros(s.channels * s.kernel * s.kernel);
  const gbias = zeros(s.channels);
  native().depthwiseConvGradWeight(
    gy,
    x,
    gweight,
    gbias,
    s.batch,
    s.height,
    s.width,
    s.channels,
    s.kernel,
  );
  return { gweight, gbias };
}

describe.each(fastBackends)("depth-wise convolution on %s", (backend) => {
  test.each(shapes.map((s) => [title(s), s] as const))("forward agrees, %s", (_, s) => {
    const { x, weight, bias } = inputs(s, 11);
    for (const b of [bias, null]) {
      const expected = on("reference", () => forward(s, x, weight, b));
      const actual = on(backend, () => forward(s, x, weight, b));
      expect(relativeError(actual, expected)).toBeLessThan(1e-6);
    }
  });

  test.each(shapes.map((s) => [title(s), s] as const))("gradients agree, %s", (_, s) => {
    const { x, weight, gy } = inputs(s, 23);
    const gx = on("reference", () => gradInput(s, gy, weight));
    expect(
      relativeError(
        on(backend, () => gradInput(s, gy, weight)),
        gx,
      ),
    ).toBeLessThan(1e-6);
    const expected = on("reference", () => gradWeight(s, gy, x));
    const actual = on(backend, () => gradWeight(s, gy, x));
    expect(relativeError(actual.gweight, expected.gweight)).toBeLessThan(1e-5);
    expect(relativeError(actual.gbias, expected.gbias)).toBeLessThan(1e-5);
  });

  test("the weight gradient can be asked for without the bias gradient", () => {
    const s = shapes[4];
    const { x, gy } = inputs(s, 31);
    const withBias = on(backend, () => gradWeight(s, gy, x)).gweight;
    const gweight = zeros(withBias.length);
    on(backend, () =>
      native().depthwiseConvGradWeight(
        gy,
        x,
        gweight,
        null,
        s.batch,
        s.height,
        s.width,
        s.channels,
        s.kernel,
      ),
    );
    expect(gweight).toEqual(withBias);
  });

  test("one thread and two threads give the same bits", () => {
    const s: Shape = { batch: 2, height: 37, width: 21, channels: 24, kernel: 5 };
    const { x, weight, bias, gy } = inputs(s, 5);
    const before = native().threads();
    const all = (count: number): readonly F32[] =>
      on(backend, () => {
        native().threads(count);
        const { gweight, gbias } = gradWeight(s, gy, x);
        return [forward(s, x, weight, bias), gradInput(s, gy, weight), gweight, gbias];
      });
    try {
      expect(all(2)).toEqual(all(1));
    } finally {
      native().threads(before);
    }
  });
});

describe("the reference depth-wise convolution", () => {
  test("sums the nine neighbours with zeros around the image", () => {
    const s: Shape = { batch: 1, height: 2, width: 2, channels: 1, kernel: 3 };
    const x = Float32Array.from([1, 2, 3, 4]);
    const weight = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const y = on("reference", () => forward(s, x, weight, Float32Array.from([0.5])));
    expect([...y]).toEqual([77.5, 67.5, 47.5, 37.5]);
  });

  test.each([shapes[2], shapes[6]].map((s) => [title(s), s] as const))(
    "gradients match central differences, %s",
    (_, s) => {
      const { x, weight, bias, gy } = inputs(s, 47);
      on("reference", () => {
        const loss = (): number => dot(forward(s, x, weight, bias), gy);
        const gx = gradInput(s, gy, weight);
        const { gweight, gbias } = gradWeight(s, gy, x);
        const some = (n: number): readonly number[] =>
          Array.from({ length: 12 }, (_, i) => (i * 7919) % n);
        expect(finiteDifferenceError(loss, x, gx, some(x.length))).toBeLessThan(1e-4);
        expect(finiteDifferenceError(loss, weight, gweight, some(weight.length))).toBeLessThan(
          1e-4,
        );
        expect(finiteDifferenceError(loss, bias, gbias, some(bias.length))).toBeLessThan(1e-4);
      });
    },
  );
});

describe.each([...fastBackends, "reference"])("gated by its own convolution on %s", (backend) => {
  test.each(shapes.map((s) => [title(s), s] as const))("%s: the bits of its parts", (_, s) => {
    const { x, weight, bias } = inputs(s, 41);
    for (const b of [bias, null]) {
      const [whole, parts] = on(backend, () => gated(s, x, weight, b));
      expect(whole).toEqual(parts);
    }
  });
});
