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

const sizes = [1, 7, 16, 61, 4099, 40_001];
const all = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Both lists hold the same numbers, output by output. */
function expectSame(a: readonly F32[], b: readonly F32[]): void {
  expect(a.map((output, i) => relativeError(output, b[i]))).toEqual(b.map(() => 0));
}

/** Maximum |a - b|. */
function difference(a: F32, b: F32): number {
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i])), 0);
}

function unary(op: "gelu" | "negativeExp", x: F32): F32 {
  const y = zeros(x.length);
  native()[op](x, y, x.length);
  return y;
}

function binary(op: "multiply" | "add" | "sigmoidGate" | "geluGrad", a: F32, b: F32): F32 {
  const y = zeros(a.length);
  native()[op](a, b, y, a.length);
  return y;
}

function gateGrad(x: F32, gate: F32, gy: F32): readonly [F32, F32] {
  const gx = zeros(x.length);
  const ggate = zeros(x.length);
  native().sigmoidGateGrad(x, gate, gy, gx, ggate, x.length);
  return [gx, ggate];
}

function scaleAdd(x: F32, factors: F32, a: F32, channels: number): F32 {
  const y = zeros(x.length);
  native().scaleAdd(x, factors, a, y, x.length / channels, channels);
  return y;
}

function scaleAddGrad(x: F32, factors: F32, gy: F32, channels: number): readonly [F32, F32] {
  const gx = zeros(x.length);
  const gscale = zeros(channels);
  native().scaleAddGrad(x, factors, gy, gx, gscale, x.length / channels, channels);
  return [gx, gscale];
}

describe("gelu", () => {
  test("it takes the known values of x Phi(x)", () => {
    const y = on("reference", () => unary("gelu", Float32Array.of(0, 1, -1, 3, -3)));
    const known = [0, 0.8413447460685429, -0.15865525393145707, 2.9959503, -0.0040496941];
    expect(relativeError(y, known)).toBeLessThan(1e-7);
  });

  test.each(fastBackends)("%s is within 2e-7 on [-8, 4], gradient included", (backend) => {
    const x = Float32Array.from({ length: 120_001 }, (_, i) => -8 + i * 1e-4);
    const ones = zeros(x.length).fill(1);
    const [y, slope] = on("reference", () => [unary("gelu", x), binary("geluGrad", x, ones)]);
    const [fast, fastSlope] = on(backend, () => [unary("gelu", x), binary("geluGrad", x, ones)]);
    // 4.8e-7 is one unit in the last place of values above 4; 2.4e-7 of those above 2.
    const low = x.findIndex((value) => value > 2);
    expect(difference(fast.subarray(0, low), y.subarray(0, low))).toBeLessThan(2e-7);
    expect(difference(fast, y)).toBeLessThan(4e-7);
    expect(difference(fastSlope, slope)).toBeLessThan(2.5e-7);
  });

  test.each(fastBackends)("%s keeps infinities and NaN apart from numbers", (backend) => {
    const x = Float32Array.of(Infinity, NaN, 1e30, -1e30, -40, 40, 0, -0);
    const size = (value: number): number => (Math.abs(value) < 1e-30 ? 0 : Math.abs(value));
    const y = on(backend, () => unary("gelu", x));
    expect([...y].map(size)).toEqual([Infinity, NaN, Math.fround(1e30), 0, 0, 40, 0, 0]);
    const slope = on(backend, () => binary("geluGrad", x, zeros(8).fill(1)));
    expect([...slope].map(size)).toEqual([1, NaN, 1, 0, 0, 1, 0.5, 0.5]);
  });

  test("its gradient is that of central differences", () => {
    const x = random(41, 3, -4, 4);
    const gy = random(41, 4);
    on("reference", () => {
      const loss = (): number => dot(unary("gelu", x), gy);
      const gx = binary("geluGrad", x, gy);
      expect(finiteDifferenceError(loss, x, gx, all(41), 4e-3)).toBeLessThan(1e-3);
    });
  });
});

describe("sigmoid gate", () => {
  test("it is x / (1 + exp(-gate))", () => {
    const y = on("reference", () =>
      binary("sigmoidGate", Float32Array.of(2, -3, 5), Float32Array.of(0, 1, -200)),
    );
    expect(relativeError(y, [1, -3 / (1 + Math.exp(-1)), 0])).toBeLessThan(1e-7);
  });

  test.each(fastBackends)("%s agrees with the reference, forward and backward", (backend) => {
    for (const n of sizes) {
      const x = random(n, n, -3, 3);
      const gate = random(n, n + 1, -12, 12);
      const gy = random(n, n + 2);
      const run = () => [binary("sigmoidGate", x, gate), ...gateGrad(x, gate, gy)];
      const reference = on("reference", run);
      on(backend, run).forEach((fast, i) => {
        expect(relativeError(fast, reference[i]), `output ${i}, n = ${n}`).toBeLessThan(1e-5);
      });
    }
    const nan = on(backend, () => binary("sigmoidGate", zeros(1), Float32Array.of(NaN)));
    expect(nan[0]).toBeNaN();
  });

  test("its gradients are those of central differences", () => {
    const [x, gate, gy] = [random(23, 5), random(23, 6, -3, 3), random(23, 7)];
    on("reference", () => {
      const loss = (): number => dot(binary("sigmoidGate", x, gate), gy);
      const [gx, ggate] = gateGrad(x, gate, gy);
      expect(finiteDifferenceError(loss, x, gx, all(23))).toBeLessThan(1e-3);
      expect(finiteDifferenceError(loss, gate, ggate, all(23))).toBeLessThan(1e-3);
    });
  });
});

describe("sums, products, scales", () => {
  test.each(fastBackends)("%s adds, multiplies and scales exactly as the reference", (backend) => {
    for (const n of sizes) {
      const [a, b] = [random(n, n), random(n, n + 1)];
      const run = () => {
        const y = zeros(n);
        native().scale(a, y, n, -0.37);
        return [binary("add", a, b), binary("multiply", a, b), y];
      };
      const [sum, product, scaled] = on("reference", run);
      expectSame(on(backend, run), [sum, product, scaled]);
      const i = n - 1;
      expect(sum[i]).toBe(Math.fround(a[i] + b[i]));
      expect(product[i]).toBe(Math.fround(a[i] * b[i]));
      expect(scaled[i]).toBe(Math.fround(a[i] * Math.fround(-0.37)));
    }
  });

  test.each(fastBackends)("%s adds and multiplies in place", (backend) => {
    const [a, b] = [random(77, 1), random(77, 2)];
    const sum = binary("add", a, b);
    const inPlace = Float32Array.from(a);
    on(backend, () => native().add(inPlace, b, inPlace, 77));
    expect(inPlace).toEqual(sum);
  });

  test.each(fastBackends)("%s: -exp(x) to 1e-6 of its value, NaN kept", (backend) => {
    const x = random(999, 8, -20, 5);
    const exact = on("reference", () => unary("negativeExp", x));
    const fast = on(backend, () => unary("negativeExp", x));
    const ratios = fast.map((value, i) => value / exact[i]);
    expect(difference(ratios, zeros(999).fill(1))).toBeLessThan(1e-6);
    expect(exact[5]).toBeCloseTo(-Math.exp(x[5]), 3);
    expect(on(backend, () => unary("negativeExp", Float32Array.of(NaN)))[0]).toBeNaN();
  });
});

describe("scale and add per channel", () => {
  test.each(fastBackends)("%s agrees with the reference, forward and backward", (backend) => {
    for (const [rows, channels] of [
      [1, 1],
      [5, 3],
      [9, 19],
      [2050, 48],
      [700, 24],
      [3, 131],
    ]) {
      const n = rows * channels;
      const [x, a, gy] = [random(n, n), random(n, n + 1), random(n, n + 2)];
      const factors = random(channels, 9);
      const run = () => [
        scaleAdd(x, factors, a, channels),
        ...scaleAddGrad(x, factors, gy, channels),
      ];
      const reference = on("reference", run);
      on(backend, run).forEach((fast, i) => {
        const label = `output ${i}, ${rows} x ${channels}`;
        expect(relativeError(fast, reference[i]), label).toBeLessThan(1e-5);
      });
    }
  });

  test("its gradients are those of central differences", () => {
    const [x, a, gy, factors] = [random(28, 1), random(28, 2), random(28, 3), random(7, 4)];
    on("reference", () => {
      const loss = (): number => dot(scaleAdd(x, factors, a, 7), gy);
      const [gx, gscale] = scaleAddGrad(x, factors, gy, 7);
      expect(finiteDifferenceError(loss, x, gx, all(28))).toBeLessThan(1e-4);
      expect(finiteDifferenceError(loss, a, gy, all(28))).toBeLessThan(1e-4);
      expect(finiteDifferenceError(loss, factors, gscale, all(7))).toBeLessThan(1e-4);
    });
  });

  test.each(fastBackends)("%s gives the same bits on one thread and on two", (backend) => {
    const [x, gy, factors] = [random(3001 * 48, 1), random(3001 * 48, 2), random(48, 3)];
    const before = native().threads();
    try {
      const [one, two] = [1, 2].map((count) => {
        native().threads(count);
        return on(backend, () => [
          ...scaleAddGrad(x, factors, gy, 48),
          unary("gelu", x),
          binary("geluGrad", x, gy),
          ...gateGrad(x, gy, gy),
        ]);
      });
      expectSame(two, one);
    } finally {
      native().threads(before);
    }
  });
});

describe("column slices", () => {
  const slice = (x: F32, columns: number, start: number, count: number): F32 => {
    const rows = x.length / columns;
    const y = zeros(rows * count);
    native().sliceColumns(x, y, rows, columns, start, count);
    return y;
  };
  const unslice = (gy: F32, columns: number, start: number, count: number): F32 => {
    const rows = gy.length / count;
    const gx = zeros(rows * columns).fill(NaN);
    native().sliceColumnsGrad(gy, gx, rows, columns, start, count);
    return gx;
  };

  test("columns 1 and 2 of a 2 x 4 matrix come out, and go back among zeros", () => {
    const x = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const y = on("reference", () => slice(x, 4, 1, 2));
    expect([...y]).toEqual([2, 3, 6, 7]);
    expect([...on("reference", () => unslice(y, 4, 1, 2))]).toEqual([0, 2, 3, 0, 0, 6, 7, 0]);
  });

  test.each(fastBackends)("%s copies exactly what the reference copies", (backend) => {
    for (const [rows, columns, start, count] of [
      [1, 1, 0, 1],
      [1025, 19, 3, 8],
      [333, 19, 11, 8],
      [77, 19, 0, 3],
      [5, 144, 48, 48],
      [6, 131, 1, 129],
    ]) {
      const x = random(rows * columns, rows);
      const gy = random(rows * count, rows + 1);
      const run = () => [slice(x, columns, start, count), unslice(gy, columns, start, count)];
      expectSame(on(backend, run), on("reference", run));
    }
  });
});
