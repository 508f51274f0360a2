import { expect, test } from "vitest";
import { fromRgbFloat, type RasterImage, toRgbFloat } from "../../lib/io/png.ts";
import { cropRaster, modcrop, roundHalfEven, toRgb8 } from "../../lib/io/raster.ts";
import { refusal } from "./helpers.ts";

const image = (channels: 1 | 2 | 3 | 4, values: number[], depth: 8 | 16 = 8): RasterImage => ({
  width: values.length / channels,
  height: 1,
  channels,
  depth,
  data: depth === 8 ? Uint8Array.from(values) : Uint16Array.from(values),
});

test("grey is replicated and alpha dropped on the way to float RGB", () => {
  expect([...toRgbFloat(image(1, [255]))]).toEqual([1, 1, 1]);
  expect([...toRgbFloat(image(2, [51, 7]))]).toEqual(new Array(3).fill(Math.fround(0.2)));
  expect([...toRgbFloat(image(3, [0, 255, 51]))]).toEqual([0, 1, Math.fround(0.2)]);
  expect([...toRgbFloat(image(4, [0, 255, 51, 9]))]).toEqual([0, 1, Math.fround(0.2)]);
  expect([...toRgbFloat(image(3, [65535, 0, 13107], 16))]).toEqual([1, 0, Math.fround(0.2)]);
});

test("every 8-bit and every 16-bit level survives the way to float and back", () => {
  const all8 = Uint8Array.from({ length: 768 }, (_, i) => i / 3);
  const rgb8 = { width: 256, height: 1, channels: 3, depth: 8, data: all8 } as const;
  expect(fromRgbFloat(toRgbFloat(rgb8), 256, 1, 8)).toEqual(rgb8);
  const all16 = Uint16Array.from({ length: 196608 }, (_, i) => i / 3);
  const rgb16 = { width: 65536, height: 1, channels: 3, depth: 16, data: all16 } as const;
  expect(fromRgbFloat(toRgbFloat(rgb16), 65536, 1, 16)).toEqual(rgb16);
});

test("floats are clamped and rounded half to even", () => {
  expect([0.5, 1.5, 2.5, 3.5, 2.4999, 2.5001, 0].map(roundHalfEven)).toEqual([0, 2, 2, 4, 2, 3, 0]);
  const infinity = Number.POSITIVE_INFINITY;
  const data = Float32Array.of(-1, 2, 0.5, -infinity, infinity, 1); // 0.5 * 255 = 127.5
  expect([...fromRgbFloat(data, 2, 1, 8).data]).toEqual([0, 255, 128, 0, 255, 255]);
  expect(fromRgbFloat(Float32Array.of(0.5, 0, 0), 1, 1, 16).data[0]).toBe(32768); // 32767.5
});

test("a NaN and a wrong size are refused", () => {
  const data = Float32Array.of(0, Number.NaN, 0);
  expect(refusal(() => fromRgbFloat(data, 1, 1, 8))).toMatch(/ERR_IMAGE.*sample 1 is NaN/);
  expect(refusal(() => fromRgbFloat(data, 2, 1, 8))).toMatch(/ERR_SHAPE/);
});

test("16 bits become 8 by rounding, and grey becomes RGB", () => {
  expect([...toRgb8(image(1, [0, 128, 129, 65535], 16)).data]).toEqual([
    0, 0, 0, 0, 0, 0, 1, 1, 1, 255, 255, 255,
  ]);
  const rgb = image(3, [1, 2, 3]);
  expect(toRgb8(rgb).data).toBe(rgb.data);
});

test("a crop keeps the top left", () => {
  const data = Uint8Array.from({ length: 5 * 4 * 2 }, (_, i) => i);
  const source = { width: 5, height: 4, channels: 2, depth: 8, data } as const;
  expect([...cropRaster(source, 2, 3).data]).toEqual([0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]);
  expect(modcrop(source, 3)).toMatchObject({ width: 3, height: 3 });
  expect(refusal(() => cropRaster(source, 6, 1))).toMatch(/ERR_IMAGE.*crop/);
  expect(refusal(() => modcrop(source, 8))).toMatch(/ERR_IMAGE.*crop/);
});
