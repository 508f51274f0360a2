import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import { expect, test } from "vitest";
import { decodePng, encodePng, type RasterImage, readPng } from "../../lib/io/png.ts";
import { random, refusal, refusalOf, temporaryFolder } from "./helpers.ts";
import { chunk, headerChunk, makePng, type PngRecipe, rawRows, SIGNATURE } from "./make_png.ts";

const SMALL: PngRecipe = {
  width: 5,
  height: 4,
  bitDepth: 8,
  colorType: 2,
  sample: (x, y, c) => (x * 50 + y * 7 + c) & 255,
};
const refuse = (bytes: Uint8Array) => refusal(() => decodePng(bytes, "p.png"));

function noise(
  seed: number,
  width: number,
  height: number,
  channels: 1 | 2 | 3 | 4,
  depth: 8 | 16,
) {
  const next = random(seed);
  const fill = () => Math.floor(next() * 2 ** depth);
  const count = width * height * channels;
  const data =
    depth === 8
      ? Uint8Array.from({ length: count }, fill)
      : Uint16Array.from({ length: count }, fill);
  return { width, height, channels, depth, data } as RasterImage;
}

test("every number of channels and depth survives encoding and decoding exactly", () => {
  for (const depth of [8, 16] as const) {
    for (const channels of [1, 2, 3, 4] as const) {
      for (const [width, height] of [
        [1, 1],
        [1, 7],
        [13, 1],
        [17, 11],
      ]) {
        const image = noise(width * 7 + channels, width, height, channels, depth);
        expect(decodePng(encodePng(image), "p")).toEqual(image);
      }
    }
  }
});

test("smooth images, for which every row filter is tried, survive too", () => {
  const next = random(5);
  const width = 40;
  const data = new Uint16Array(width * 30 * 3);
  for (let i = 0; i < data.length; i++) {
    const left = i >= 3 ? data[i - 3] : 0;
    const up = i >= width * 3 ? data[i - width * 3] : 0;
    data[i] = [left, up, (left + up) >> 1, left + up, 0][Math.floor(i / 360) % 5] + next() * 9;
  }
  const image = { width, height: 30, channels: 3, depth: 16, data } as const;
  expect(decodePng(encodePng(image), "p").data).toEqual(data);
  const bytes = { ...image, depth: 8, data: Uint8Array.from(data) } as const;
  expect(decodePng(encodePng(bytes), "p").data).toEqual(bytes.data);
});

test("16-bit samples in the middle of a larger buffer are encoded from where they lie", () => {
  const whole = noise(2, 4, 4, 3, 16);
  const part = { ...whole, height: 2, data: whole.data.subarray(12, 36) };
  expect(decodePng(encodePng(part), "p").data).toEqual(whole.data.slice(12, 36));
});

test("a fully opaque alpha channel stays declared", () => {
  const data = Uint8Array.of(1, 2, 3, 255, 4, 5, 6, 255);
  const image = { width: 2, height: 1, channels: 4, depth: 8, data } as const;
  expect(decodePng(encodePng(image), "p")).toEqual(image);
});

test("every kind of PNG, plain and interlaced, decodes to the samples it was made of", () => {
  const kinds = [
    [0, [1, 2, 4, 8, 16], 1],
    [2, [8, 16], 3],
    [4, [8, 16], 2],
    [6, [8, 16], 4],
  ] as const;
  for (const [colorType, depths, channels] of kinds) {
    for (const bitDepth of depths) {
      for (const interlaced of [false, true]) {
        for (const [width, height] of [
          [1, 1],
          [3, 2],
          [5, 9],
          [13, 8],
        ]) {
          const next = random(width * 100 + bitDepth);
          const raw = Array.from({ length: width * height * channels }, () =>
            Math.floor(next() * 2 ** bitDepth),
          );
          const sample = (x: number, y: number, c: number) => raw[(y * width + x) * channels + c];
          const recipe = { width, height, bitDepth, colorType, interlaced, sample };
          const image = decodePng(makePng(recipe), "p");
          const scale = bitDepth < 8 ? 255 / (2 ** bitDepth - 1) : 1;
          expect(image).toMatchObject({ width, height, channels, depth: bitDepth === 16 ? 16 : 8 });
          expect([...image.data]).toEqual(raw.map((value) => value * scale));
        }
      }
    }
  }
});

test("a palette is expanded to RGB, and its transparency to alpha", () => {
  const palette = [10, 20, 30, 40, 50, 60, 70, 80, 90];
  const sample = (x: number, y: number) => (x + y) % 3;
  for (const bitDepth of [2, 4, 8]) {
    const recipe = { ...SMALL, width: 3, height: 1, bitDepth, colorType: 3, palette, sample };
    const rgb = decodePng(makePng(recipe), "p");
    expect([rgb.channels, ...rgb.data]).toEqual([3, ...palette]);
    const transparency = Uint8Array.of(0, 128);
    const rgba = decodePng(makePng({ ...recipe, transparency }), "p");
    expect([rgba.channels, ...rgba.data]).toEqual([
      4, 10, 20, 30, 0, 40, 50, 60, 128, 70, 80, 90, 255,
    ]);
  }
  const beyond = { ...SMALL, colorType: 3, palette, sample: () => 3 };
  expect(refuse(makePng(beyond))).toMatch(/ERR_IMAGE.*palette/);
});

test("pixels of the transparent colour get alpha 0 and keep their colour", () => {
  const grey = { ...SMALL, width: 3, height: 1, bitDepth: 4, colorType: 0 };
  const key = Uint8Array.of(0, 5);
  const two = decodePng(makePng({ ...grey, sample: (x) => x + 4, transparency: key }), "p");
  expect([two.channels, ...two.data]).toEqual([2, 68, 255, 85, 0, 102, 255]);
  const rgb16 = { ...SMALL, width: 2, height: 1, bitDepth: 16, sample: (x: number) => 1000 + x };
  const transparency = Uint8Array.of(3, 0xe9, 3, 0xe9, 3, 0xe9); // 1001 thrice
  const four = decodePng(makePng({ ...rgb16, transparency }), "p");
  expect([...four.data]).toEqual([1000, 1000, 1000, 65535, 1001, 1001, 1001, 0]);
});

test("what follows IEND is ignored", () => {
  const bytes = makePng(SMALL);
  const image = decodePng(bytes, "p");
  expect(decodePng(Buffer.concat([bytes, Buffer.from("trailer")]), "p")).toEqual(image);
});

test("a PNG cut at any byte is refused with ERR_IMAGE", () => {
  for (const bytes of [makePng(SMALL), Buffer.from(encodePng(noise(1, 9, 9, 4, 16)))]) {
    for (let size = 0; size < bytes.length; size++) {
      expect(refuse(bytes.subarray(0, size))).toMatch(/^ERR_IMAGE: p\.png/);
    }
  }
});

test("a PNG with any byte flipped is refused with ERR_IMAGE", () => {
  const bytes = makePng(SMALL);
  for (let at = 0; at < bytes.length; at++) {
    const bad = Buffer.from(bytes);
    bad[at] ^= 1 << (at % 8);
    expect(refuse(bad)).toMatch(/^ERR_IMAGE: p\.png/);
  }
});

test("pixel data that are too short, too long or not compressed are refused", () => {
  const rows = rawRows(SMALL);
  const withData = (data: Uint8Array) =>
    Buffer.concat([SIGNATURE, headerChunk(SMALL), chunk("IDAT", data), chunk("IEND")]);
  expect(decodePng(withData(deflateSync(rows)), "p").width).toBe(5);
  expect(refuse(withData(deflateSync(rows.subarray(1))))).toMatch(/have 63 bytes in place of 64/);
  expect(refuse(withData(deflateSync(Buffer.concat([rows, rows]))))).toMatch(/^ERR_IMAGE/);
  expect(refuse(withData(deflateSync(Buffer.alloc(50_000_000))))).toMatch(/^ERR_IMAGE/);
  expect(refuse(withData(deflateSync(rows).subarray(0, -5)))).toMatch(/cut short/);
  expect(refuse(withData(Buffer.from("garbage")))).toMatch(/do not inflate/);
  expect(refuse(withData(Buffer.alloc(0)))).toMatch(/do not inflate/);
  const badFilter = Buffer.from(rows);
  badFilter[0] = 5;
  expect(refuse(withData(deflateSync(badFilter)))).toMatch(/ERR_IMAGE.*filter/);
});

test("chunks that are missing, malformed or out of order are refused", () => {
  const data = chunk("IDAT", deflateSync(rawRows(SMALL)));
  const build = (...chunks: Buffer[]) => Buffer.concat([SIGNATURE, ...chunks]);
  const header = headerChunk(SMALL);
  const end = chunk("IEND");
  expect(refuse(build(data, header, end))).toMatch(/does not begin with IHDR/);
  expect(refuse(build(header, data))).toMatch(/before its IEND/);
  expect(refuse(build(header, end))).toMatch(/ERR_IMAGE/);
  expect(refuse(build(header, chunk("ABCD"), data, end))).toMatch(/ERR_IMAGE.*critical/);
  expect(refuse(build(header, header, data, end))).toMatch(/ERR_IMAGE/);
  expect(refuse(build(header, data, chunk("PLTE", Buffer.alloc(3)), end))).toMatch(/late PLTE/);
  expect(refuse(build(header, chunk("PLTE", Buffer.alloc(4)), data, end))).toMatch(/palette/);
  expect(refuse(build(header, chunk("tRNS", Buffer.alloc(1)), data, end))).toMatch(/transparency/);
  const indexed = headerChunk({ ...SMALL, colorType: 3 });
  expect(refuse(build(indexed, data, end))).toMatch(/palette is missing/);
  expect(refuse(build(headerChunk({ ...SMALL, bitDepth: 4 }), data, end))).toMatch(/none of PNG/);
});

test("an image of no pixels is refused, one of a single pixel is not", () => {
  for (const [width, height] of [
    [0, 4],
    [4, 0],
    [0, 0],
  ]) {
    expect(refuse(makePng({ ...SMALL, width, height }))).toMatch(/ERR_IMAGE.*sides of 1 pixel/);
  }
  expect(decodePng(makePng({ ...SMALL, width: 1, height: 1 }), "p").data.length).toBe(3);
});

test("an image beyond the limit is refused from its header, before its data are looked at", () => {
  const huge = { ...SMALL, width: 2 ** 31 - 1, height: 2 ** 31 - 1 };
  const bytes = Buffer.concat([SIGNATURE, headerChunk(huge)]);
  expect(refuse(bytes)).toMatch(/ERR_IMAGE.*at most 268435456 samples/);
  const small = makePng(SMALL);
  expect(refusal(() => decodePng(small, "p", { maxSamples: 59 }))).toMatch(/at most 59 samples/);
  expect(decodePng(small, "p", { maxSamples: 60 }).width).toBe(5);
});

test("a file that is no PNG is refused by its name; a missing one with ERR_IO", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "x.png");
  writeFileSync(path, "\xff\xd8\xff a JPEG");
  expect(await refusalOf(readPng(path))).toMatch(/^ERR_IMAGE: .*x\.png: expected a PNG image/);
  writeFileSync(path, "");
  expect(await refusalOf(readPng(path))).toMatch(/an empty file/);
  expect(await refusalOf(readPng(join(folder, "none.png")))).toMatch(/^ERR_IO: .*none\.png/);
  writeFileSync(path, makePng(SMALL));
  expect((await readPng(path)).width).toBe(5);
});

test("random bytes after the signature never decode and never crash", () => {
  const next = random(11);
  for (let round = 0; round < 300; round++) {
    const body = Buffer.from(Array.from({ length: 60 }, () => Math.floor(next() * 256)));
    expect(refuse(Buffer.concat([SIGNATURE, headerChunk(SMALL), body]))).toMatch(/^ERR_IMAGE/);
  }
});

test("a malformed image is not encoded", () => {
  const image = noise(1, 2, 2, 3, 8);
  const encode = (change: Partial<RasterImage>) =>
    refusal(() => encodePng({ ...image, ...change }));
  expect(encode({ width: 3 })).toMatch(/ERR_IMAGE.*18 samples/);
  expect(encode({ depth: 16 })).toMatch(/ERR_IMAGE/);
  expect(encode({ width: 0, data: new Uint8Array(0) })).toMatch(/ERR_IMAGE/);
  expect(encode({ channels: 5 as 4 })).toMatch(/ERR_IMAGE/);
});
