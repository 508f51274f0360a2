import { inflateSync } from "node:zlib";
import { PNG } from "pngjs";
import { describe, expect, test } from "vitest";
import { outlineImage } from "../../lib/io/pictures.ts";
import { decodeBytes, decodePng, encodePng } from "../../lib/io/png.ts";
import { writePng } from "../../lib/io/png_writer.ts";
import type { RasterImage } from "../../lib/io/raster.ts";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { picture } from "../cli/tiny_model.ts";
import { random, refusalOf, temporaryFolder } from "./helpers.ts";
import { headerChunk, makePng, SIGNATURE } from "./make_png.ts";

/** Rows of an image in arrays of 1 to `most` rows. */
function* rowsOf(image: RasterImage, most: number, next: () => number): Generator<Uint8Array> {
  const row = image.width * image.channels;
  for (let y = 0; y < image.height; ) {
    const count = Math.min(image.height - y, 1 + Math.floor(next() * most));
    yield image.data.subarray(y * row, (y + count) * row) as Uint8Array;
    y += count;
  }
}

async function written(
  image: RasterImage,
  rows: Iterable<RasterImage["data"]>,
  pause: () => Promise<void> = async () => {},
): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  await writePng(image, rows, async (bytes) => {
    await pause();
    parts.push(bytes);
  });
  return Buffer.concat(parts);
}

/** An image of noise, of flat colour, or of smooth colours. */
function sample(kind: number, shape: Omit<RasterImage, "data">, next: () => number): RasterImage {
  const { width, height, channels, depth } = shape;
  const image = picture(width, height, channels, depth, 1 + Math.floor(next() * 1000));
  if (kind === 0) for (let i = 0; i < image.data.length; i++) image.data[i] = next() * 65536;
  if (kind === 1) image.data.fill(next() * 65536);
  return image;
}

describe("what is written is read back equal", () => {
  const kinds = ([1, 2, 3, 4] as const).flatMap((channels) =>
    ([8, 16] as const).map((depth) => [channels, depth] as const),
  );
  test.each(kinds)(
    "%i channels of %i bits, any size, rows in any portions",
    async (channels, depth) => {
      const next = random(channels * 100 + depth);
      for (let trial = 0; trial < 24; trial++) {
        const [width, height] = [1 + Math.floor(next() * 40), 1 + Math.floor(next() * 40)];
        const image = sample(trial % 3, { width, height, channels, depth }, next);
        const bytes = await written(image, rowsOf(image, 9, next));
        expect(decodePng(bytes, "result")).toEqual(image);
      }
    },
  );

  test("pngjs alone reads it as well, and it is about as small as what pngjs writes", async () => {
    const image = picture(301, 203, 3);
    const bytes = await written(image, [image.data]);
    const rgba = PNG.sync.read(bytes).data;
    expect(rgba.length).toBe(301 * 203 * 4);
    for (let i = 0; i < 301 * 203; i += 97) {
      expect([...rgba.subarray(4 * i, 4 * i + 4)]).toEqual([
        ...image.data.subarray(3 * i, 3 * i + 3),
        255,
      ]);
    }
    expect(bytes.length).toBeLessThan(1.1 * encodePng(image).length);
  });

  test("rows wider than a block of the writer, and data of several chunks", async () => {
    const next = random(3);
    const image = sample(0, { width: 50_000, height: 5, channels: 4, depth: 16 }, next);
    const bytes = await written(image, rowsOf(image, 2, next));
    expect(bytes.toString("latin1").split("IDAT").length).toBeGreaterThan(10);
    expect(decodePng(bytes, "result").data).toEqual(image.data);
  });

  test("every filter is chosen where it leaves nothing", async () => {
    const image = picture(64, 6, 3);
    const row = (y: number) => image.data.subarray(y * 192, y * 192 + 192);
    row(0).fill(0); // none
    for (let x = 0; x < 192; x += 50) row(0)[x] = 1;
    for (let x = 0; x < 192; x++) row(1)[x] = 3 * Math.floor(x / 3); // sub
    row(2).set(noise(192));
    row(3).set(row(2)); // up
    for (let x = 0; x < 192; x++) {
      const left = x < 3 ? 0 : row(4)[x - 3];
      row(4)[x] = (left + row(3)[x]) >> 1; // average
    }
    row(5).set(noise(192).subarray(0, 3)); // Paeth, but for the first pixel
    for (let x = 3; x < 192; x++) {
      const near = [row(5)[x - 3], row(4)[x], row(4)[x - 3]];
      const far = near.map((value) => Math.abs(near[0] + near[1] - near[2] - value));
      row(5)[x] = near[far.indexOf(Math.min(...far))];
    }
    const raw = inflateSync(idat(await written(image, [image.data])));
    expect([0, 1, 3, 4, 5].map((y) => raw[y * 193])).toEqual([0, 1, 2, 3, 4]);
  });
});

/** The joined contents of the IDAT chunks. */
function idat(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const body = bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at));
    if (bytes.toString("latin1", at + 4, at + 8) === "IDAT") parts.push(body);
  }
  return Buffer.concat(parts);
}

/** Bytes that do not deflate. */
function noise(length: number): Uint8Array {
  const next = random(5);
  return Uint8Array.from({ length }, () => next() * 256);
}

describe("errors and back-pressure", () => {
  test("too few rows, too many, and half a row are ERR_SHAPE", async () => {
    const image = picture(9, 7);
    const { data } = image;
    for (const rows of [[data.subarray(27)], [data, data.subarray(0, 27)], [data.subarray(1)]]) {
      expect(await refusalOf(written(image, rows))).toMatch(/ERR_SHAPE: rows of the PNG/);
    }
  });

  test("an error of the rows passes as it is", async () => {
    const broken = new Error("no more tiles");
    const rows = (function* () {
      yield picture(9, 2).data;
      throw broken;
    })();
    await expect(written(picture(9, 7), rows)).rejects.toBe(broken);
  });

  test("an error of the write ends the rows and passes as it is", async () => {
    const full = new Error("disk full");
    const shape = { width: 4000, height: 4000, channels: 3, depth: 8 } as const;
    let asked = 0;
    const portion = noise(20 * 12_000);
    const rows = async function* () {
      for (; asked < 4000; asked += 20) yield portion;
    };
    let calls = 0;
    const write = async () => {
      if (++calls === 4) throw full;
    };
    await expect(writePng(shape, rows(), write)).rejects.toBe(full);
    expect(asked).toBeLessThan(400);
  });

  test("a slow writer holds the rows back", async () => {
    const shape = { width: 1000, height: 600, channels: 3, depth: 8 } as const;
    const portion = noise(20 * 3000);
    let [given, taken, ahead] = [0, 0, 0];
    const rows = async function* () {
      for (let y = 0; y < 600; y += 20) {
        given += portion.length; // of noise: as many bytes come out as go in
        ahead = Math.max(ahead, given - taken);
        yield portion;
      }
    };
    await writePng(shape, rows(), async (bytes) => {
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
      taken += bytes.length;
    });
    expect(given).toBe(30 * portion.length);
    expect(ahead).toBeLessThan(600_000);
  });
});

test("the same image is the same file, however fast it is written", async () => {
  const image = sample(0, { width: 500, height: 600, channels: 3, depth: 8 }, random(9));
  const next = random(10);
  const pause = async () => {
    if (next() < 0.5) await new Promise((resolve) => setImmediate(resolve));
  };
  const bytes = await written(image, rowsOf(image, 30, random(11)));
  expect(await written(image, rowsOf(image, 30, random(11)), pause)).toEqual(bytes);
});

describe("the outline of a file", () => {
  test.each([
    [
      { bitDepth: 16, colorType: 6 },
      { channels: 4, depth: 16 },
    ],
    [
      { bitDepth: 2, colorType: 0 },
      { channels: 1, depth: 8 },
    ],
    [
      { bitDepth: 8, colorType: 3, palette: [1, 2, 3, 4, 5, 6] },
      { channels: 3, depth: 8 },
    ],
  ])("%o is told from the header", async (recipe, kind) => {
    const path = join(temporaryFolder(), "a.png");
    writeFileSync(path, makePng({ width: 7, height: 5, sample: (x) => x % 2, ...recipe }));
    const outline = await outlineImage(path);
    expect(outline).toEqual({ width: 7, height: 5, ...kind });
    expect(decodeBytes(outline!)).toBeGreaterThan(7 * 5 * kind.channels);
  });

  test("what is no PNG, cut short or missing is refused, what is no file is let be", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "a.png");
    const header = headerChunk({ width: 7, height: 5, bitDepth: 8, colorType: 2 });
    for (const bytes of [Buffer.from("hello"), Buffer.concat([SIGNATURE, header.subarray(0, 9)])]) {
      writeFileSync(path, bytes);
      expect(await refusalOf(outlineImage(path))).toContain("ERR_IMAGE");
    }
    expect(await refusalOf(outlineImage(join(folder, "b.png")))).toContain("ERR_IO");
    expect(await outlineImage("/dev/null")).toBeNull();
  });
});
