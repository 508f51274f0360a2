import { expect, test } from "vitest";
import { loadPair, pairImages } from "../../lib/io/images.ts";
import type { RasterImage } from "../../lib/io/raster.ts";
import { bicubicLumaPsnr } from "../../lib/metrics/bicubic_luma.ts";
import { lumaPlane } from "../../lib/metrics/color.ts";
import { psnrY } from "../../lib/metrics/psnr.ts";
import { ssimY } from "../../lib/metrics/ssim.ts";
import { hasTestData, testData } from "../data.ts";
import { refusal } from "../io/helpers.ts";

/** The hash of the protocol's test vectors: u(k, i) in [-0.5, 0.5). */
function hash(k: number, i: number): number {
  let h = Math.imul(k + 1, 0x9e3779b1) ^ Math.imul(i + 1, 0x85ebca77);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  h ^= h >>> 12;
  h = Math.imul(h, 0x297a2d39);
  h ^= h >>> 15;
  return (h >>> 0) / 2 ** 32 - 0.5;
}

const rgb = (width: number, height: number, data: Uint8Array): RasterImage => ({
  width,
  height,
  channels: 3,
  depth: 8,
  data,
});
const FIRST = rgb(
  20,
  24,
  Uint8Array.from({ length: 1440 }, (_, i) => Math.floor((hash(7, i) + 0.5) * 256)),
);
const SECOND = rgb(
  20,
  24,
  Uint8Array.from({ length: 1440 }, (_, i) =>
    Math.min(255, Math.max(0, FIRST.data[i] + Math.floor(21 * hash(8, i)))),
  ),
);

test("the protocol's test vector gives its PSNR, SSIM and mean luma", () => {
  expect([...FIRST.data.slice(0, 3), ...SECOND.data.slice(0, 3)]).toEqual([
    12, 85, 218, 13, 87, 219,
  ]);
  const mean = (image: RasterImage) => {
    const { data } = lumaPlane(image, 2);
    return data.reduce((a, b) => a + b) / data.length;
  };
  expect(mean(FIRST)).toBeCloseTo(122.841281, 5);
  expect(mean(SECOND)).toBeCloseTo(122.26719, 5);
  expect(psnrY(FIRST, SECOND, 2)).toBeCloseTo(36.955753, 5);
  expect(ssimY(FIRST, SECOND, 2)).toBeCloseTo(0.99700183, 7);
});

test("luma runs from 16 to 235 and is not rounded", () => {
  const image = rgb(3, 1, Uint8Array.of(0, 0, 0, 255, 255, 255, 100, 150, 200));
  const { data } = lumaPlane(image, 0);
  expect(data[0]).toBe(16);
  expect(data[1]).toBeCloseTo(235, 12);
  expect(data[2]).toBeCloseTo(16 + (6548.1 + 19282.95 + 4993.2) / 255, 12);
});

test("grey counts as equal channels, and alpha is ignored", () => {
  const values = Uint8Array.of(7, 130, 250, 64);
  const grey: RasterImage = { width: 2, height: 2, channels: 1, depth: 8, data: values };
  const tripled = rgb(
    2,
    2,
    Uint8Array.from({ length: 12 }, (_, i) => values[Math.floor(i / 3)]),
  );
  const rgba: RasterImage = {
    width: 2,
    height: 2,
    channels: 4,
    depth: 8,
    data: Uint8Array.from({ length: 16 }, (_, i) => (i % 4 === 3 ? i : values[i >> 2])),
  };
  expect(lumaPlane(grey, 0).data).toEqual(lumaPlane(tripled, 0).data);
  expect(lumaPlane(rgba, 0).data).toEqual(lumaPlane(tripled, 0).data);
});

test("the border is cut on all four sides: changes inside of it do not count", () => {
  const data = Uint8Array.from(FIRST.data);
  for (let y = 0; y < 24; y++) {
    for (let x = 0; x < 20; x++) {
      if (x < 2 || x >= 18 || y < 2 || y >= 22) data[(y * 20 + x) * 3] ^= 0x7f;
    }
  }
  expect(psnrY(FIRST, rgb(20, 24, data), 2)).toBe(Number.POSITIVE_INFINITY);
  expect(ssimY(FIRST, rgb(20, 24, data), 2)).toBeCloseTo(1, 12);
  expect(psnrY(FIRST, rgb(20, 24, data), 1)).toBeLessThan(60);
});

test("PSNR of a constant error is the textbook value", () => {
  const flat = (value: number): RasterImage => ({
    width: 4,
    height: 4,
    channels: 1,
    depth: 8,
    data: new Uint8Array(16).fill(value),
  });
  const step = (255 - 0) / 219; // one luma level, in grey levels
  expect(psnrY(flat(100), flat(110), 0)).toBeCloseTo(20 * Math.log10(255 / (10 / step)), 9);
});

test("SSIM agrees with a direct, two-dimensional computation", () => {
  const x = lumaPlane(FIRST, 4);
  const y = lumaPlane(SECOND, 4);
  const weight = (i: number) => Math.exp(-((i - 5) ** 2) / 4.5);
  let total = 0;
  let count = 0;
  for (let top = 0; top + 11 <= x.height; top++) {
    for (let left = 0; left + 11 <= x.width; left++) {
      const sums = [0, 0, 0, 0, 0, 0];
      for (let i = 0; i < 121; i++) {
        const w = weight(Math.floor(i / 11)) * weight(i % 11);
        const at = (top + Math.floor(i / 11)) * x.width + left + (i % 11);
        const [a, b] = [x.data[at], y.data[at]];
        [1, a, b, a * a, b * b, a * b].forEach((value, k) => {
          sums[k] += w * value;
        });
      }
      const [a, b, aa, bb, ab] = sums.slice(1).map((sum) => sum / sums[0]);
      const structure = (2 * a * b + 6.5025) * (2 * (ab - a * b) + 58.5225);
      total += structure / ((a * a + b * b + 6.5025) * (aa - a * a + bb - b * b + 58.5225));
      count++;
    }
  }
  expect(ssimY(FIRST, SECOND, 4)).toBeCloseTo(total / count, 10);
});

test("images of two sizes, of 16 bits, or too small are refused", () => {
  const other = rgb(24, 20, FIRST.data as Uint8Array);
  expect(refusal(() => psnrY(FIRST, other, 2))).toMatch(/ERR_SHAPE.*20x24.*24x20/);
  const deep: RasterImage = { ...FIRST, depth: 16, data: Uint16Array.from(FIRST.data) };
  expect(refusal(() => psnrY(FIRST, deep, 2))).toMatch(/ERR_IMAGE.*8-bit/);
  expect(refusal(() => psnrY(FIRST, SECOND, 10))).toMatch(/ERR_SHAPE.*two borders of 10/);
  expect(refusal(() => ssimY(FIRST, SECOND, 5))).toMatch(/ERR_SHAPE.*11 pixels/);
});

test.skipIf(!hasTestData)("bicubic on luma alone gives the published rows of Set5", async () => {
  for (const [scale, wanted] of [
    [2, 33.66],
    [4, 28.42],
  ]) {
    const pairs = await pairImages(testData("images/Set5/HR"), null, scale);
    let sum = 0;
    for (const pair of pairs) sum += bicubicLumaPsnr((await loadPair(pair, scale)).hr, scale);
    expect(Math.abs(sum / pairs.length - wanted)).toBeLessThan(0.005);
  }
});
