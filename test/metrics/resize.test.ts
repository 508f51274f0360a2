import { expect, test } from "vitest";
import { loadPair, pairImages } from "../../lib/io/images.ts";
import { lumaPlane } from "../../lib/metrics/color.ts";
import { psnrY } from "../../lib/metrics/psnr.ts";
import { bicubicResize, bicubicResizeFloat } from "../../lib/metrics/resize.ts";
import { hasTestData, testData } from "../data.ts";
import { random, refusal } from "../io/helpers.ts";

/** Weights of output sample 5 of a line of 40, read off by resizing unit impulses. */
function weightsAt5(scale: number): number[] {
  return Array.from({ length: 40 }, (_, i) => {
    const line = new Float32Array(40);
    line[i] = 1;
    return bicubicResizeFloat(line, 40, 1, 1, scale).data[5];
  });
}

test("the weights of halving, thirding and quartering are MATLAB's", () => {
  const expected: [number, number, number[]][] = [
    [2, 7, [-0.01171875, -0.03515625, 0.11328125, 0.43359375]],
    [
      4,
      14,
      [
        -0.0017089844, -0.0109863281, -0.0183105469, -0.0119628906, 0.0227050781, 0.0974121094,
        0.1818847656, 0.2409667969,
      ],
    ],
  ];
  for (const [scale, first, half] of expected) {
    const want = new Array(40).fill(0);
    [...half, ...half.toReversed()].forEach((weight, i) => {
      want[first + i] = weight;
    });
    weightsAt5(1 / scale).forEach((weight, i) => {
      expect(weight).toBeCloseTo(want[i], 8);
    });
  }
  const third = weightsAt5(1 / 3).slice(11, 22);
  [-1, -2, 0, 9, 21, 27, 21, 9, 0, -2, -1].forEach((weight, i) => {
    expect(third[i]).toBeCloseTo(weight / 81, 7);
  });
});

test("a constant stays constant at every scale and size, also beside the border", () => {
  for (const scale of [1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4]) {
    for (const [width, height] of [
      [1, 1],
      [3, 2],
      [7, 12],
    ]) {
      const data = new Uint8Array(width * height * 3).fill(77);
      const out = bicubicResize(data, width, height, 3, scale);
      expect([out.width, out.height]).toEqual(
        [width, height].map((side) => Math.ceil(side * scale - 1e-9)),
      );
      expect(out.data.every((value) => value === 77)).toBe(true);
    }
  }
});

test("a mirrored image gives the mirrored result", () => {
  const next = random(3);
  const data = Float32Array.from({ length: 12 * 8 }, () => next());
  const flipped = data.map((_, i) => data[Math.floor(i / 12) * 12 + 11 - (i % 12)]);
  for (const scale of [1 / 4, 1 / 2, 2]) {
    const a = bicubicResizeFloat(data, 12, 8, 1, scale);
    const b = bicubicResizeFloat(flipped, 12, 8, 1, scale);
    b.data.forEach((value, i) => {
      const mirror = Math.floor(i / a.width) * a.width + a.width - 1 - (i % a.width);
      expect(value).toBeCloseTo(a.data[mirror], 6);
    });
  }
});

test("channels are resized alone, and a transposed image gives the transposed result", () => {
  const next = random(8);
  const [width, height] = [9, 6];
  const data = Float32Array.from({ length: width * height * 2 }, () => next());
  const both = bicubicResizeFloat(data, width, height, 2, 1 / 3);
  for (const c of [0, 1]) {
    const turned = Float32Array.from(
      { length: width * height },
      (_, i) => data[((i % height) * width + Math.floor(i / height)) * 2 + c],
    );
    const one = bicubicResizeFloat(turned, height, width, 1, 1 / 3);
    one.data.forEach((value, i) => {
      const at = (i % one.width) * both.width + Math.floor(i / one.width);
      expect(value).toBeCloseTo(both.data[at * 2 + c], 6);
    });
  }
});

test("8-bit results overshoot into the clip, floats do not", () => {
  const step = [0, 0, 0, 0, 255, 255, 255, 255];
  const bytes = bicubicResize(Uint8Array.from(step), 8, 1, 1, 2).data;
  const floats = bicubicResizeFloat(Float32Array.from(step), 8, 1, 1, 2).data;
  expect(Math.min(...floats)).toBeLessThan(-1);
  expect(Math.max(...floats)).toBeGreaterThan(256);
  floats.forEach((value, i) => {
    expect(bytes[i]).toBe(Math.round(Math.min(255, Math.max(0, value))));
  });
});

test("scale 1 changes nothing", () => {
  const next = random(4);
  const data = Uint8Array.from({ length: 5 * 7 * 3 }, () => next() * 256);
  expect(bicubicResize(data, 5, 7, 3, 1)).toEqual({ data, width: 5, height: 7 });
});

test("a size that does not fit and a scale that is none are refused", () => {
  expect(refusal(() => bicubicResize(new Uint8Array(5), 2, 2, 1, 2))).toMatch(/^ERR_SHAPE/);
  expect(refusal(() => bicubicResize(new Uint8Array(0), 0, 0, 1, 2))).toMatch(/^ERR_SHAPE/);
  for (const scale of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(refusal(() => bicubicResize(new Uint8Array(4), 2, 2, 1, scale))).toMatch(
      /^ERR_ARGUMENT/,
    );
  }
});

/** Set5 by name, with its benchmark LR. */
async function set5(scale: number) {
  const lrDir = testData("images/Set5/LR_bicubic");
  const pairs = await pairImages(testData("images/Set5/HR"), lrDir, scale);
  return Promise.all(pairs.map((pair) => loadPair(pair, scale)));
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
const toBytes = (data: Float32Array) =>
  Uint8Array.from(data, (value) => Math.round(Math.min(255, Math.max(0, value))));

for (const [scale, published] of [
  [2, 33.66],
  [4, 28.42],
] as const) {
  // The figure in the literature was taken on the Y channel alone: Y of HR, rounded, is reduced and
  // enlarged in floats, and the PSNR is that of the two 8-bit Y planes.
  test.skipIf(!hasTestData)(
    `bicubic on Y alone gives Set5 x${scale} its published PSNR`,
    async () => {
      const scores = (await set5(scale)).map(({ hr }) => {
        const { width, height } = hr;
        const y = Float32Array.from(lumaPlane(hr, 0).data, Math.round);
        const low = bicubicResizeFloat(y, width, height, 1, 1 / scale);
        const back = toBytes(bicubicResizeFloat(low.data, low.width, low.height, 1, scale).data);
        let squares = 0;
        let count = 0;
        for (let i = 0; i < y.length; i++) {
          const [row, column] = [Math.floor(i / width), i % width];
          const edge = Math.min(row, column, height - 1 - row, width - 1 - column);
          if (edge < scale) continue;
          squares += (back[i] - y[i]) ** 2;
          count++;
        }
        return 20 * Math.log10(255 / Math.sqrt(squares / count));
      });
      expect(Math.abs(mean(scores) - published)).toBeLessThan(0.01);
    },
  );

  // This project's protocol enlarges RGB and does not round Y, which comes out up to 0.02 dB higher.
  test.skipIf(!hasTestData)(
    `bicubic on RGB stays within 0.02 dB of it on Set5 x${scale}`,
    async () => {
      const scores = (await set5(scale)).map(({ hr, lr }) => {
        const { width, height, data } = bicubicResize(lr.data, lr.width, lr.height, 3, scale);
        return psnrY({ width, height, channels: 3, depth: 8, data }, hr, scale);
      });
      expect(mean(scores)).toBeGreaterThan(published);
      expect(mean(scores)).toBeLessThan(published + 0.02);
    },
  );
}
