/** Makes PNG files of any kind for the tests, chunk by chunk, independently of any PNG library. */
import { crc32, deflateSync } from "node:zlib";

export const SIGNATURE: Buffer = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** One chunk with its checksum. */
export function chunk(type: string, body: Uint8Array = new Uint8Array(0)): Buffer {
  const out = Buffer.alloc(12 + body.length);
  out.writeUInt32BE(body.length, 0);
  out.write(type, 4, "latin1");
  out.set(body, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + body.length)), 8 + body.length);
  return out;
}

export interface PngRecipe {
  readonly width: number;
  readonly height: number;
  readonly bitDepth: number;
  readonly colorType: number;
  readonly interlaced?: boolean;
  readonly palette?: readonly number[];
  readonly transparency?: Uint8Array;
  /** Raw sample `channel` of pixel (x, y), below 2^bitDepth. */
  readonly sample: (x: number, y: number, channel: number) => number;
}

const SAMPLES: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** The IHDR chunk of a recipe. */
export function headerChunk(recipe: Omit<PngRecipe, "sample">): Buffer {
  const body = Buffer.alloc(13);
  body.writeUInt32BE(recipe.width, 0);
  body.writeUInt32BE(recipe.height, 4);
  body.set([recipe.bitDepth, recipe.colorType, 0, 0, recipe.interlaced ? 1 : 0], 8);
  return chunk("IHDR", body);
}

/** Rows of the image, each after a filter byte of 0, before compression. */
export function rawRows(recipe: PngRecipe): Buffer {
  const { width, height, bitDepth, sample } = recipe;
  const rows: Buffer[] = [];
  const whole = [[0, 0, 1, 1]] as const;
  for (const [x0, y0, stepX, stepY] of recipe.interlaced ? PASSES : whole) {
    for (let y = y0; y < height && x0 < width; y += stepY) {
      let bits = "";
      for (let x = x0; x < width; x += stepX) {
        for (let c = 0; c < SAMPLES[recipe.colorType]; c++) {
          bits += sample(x, y, c).toString(2).padStart(bitDepth, "0");
        }
      }
      const bytes = bits.match(/.{1,8}/g)?.map((byte) => Number.parseInt(byte.padEnd(8, "0"), 2));
      rows.push(Buffer.from([0, ...(bytes ?? [])]));
    }
  }
  return Buffer.concat(rows);
}

/** A whole PNG file; its data are split over two IDAT chunks. */
export function makePng(recipe: PngRecipe): Buffer {
  const data = deflateSync(rawRows(recipe));
  const half = data.length >> 1;
  return Buffer.concat([
    SIGNATURE,
    headerChunk(recipe),
    chunk("tEXt", Buffer.from("Comment\0made for a test")),
    ...(recipe.palette ? [chunk("PLTE", Uint8Array.from(recipe.palette))] : []),
    ...(recipe.transparency ? [chunk("tRNS", recipe.transparency)] : []),
    chunk("IDAT", data.subarray(0, half)),
    chunk("IDAT", data.subarray(half)),
    chunk("IEND"),
  ]);
}
