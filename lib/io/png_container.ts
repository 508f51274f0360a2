/**
 * Strict check of a PNG file before it is decoded: signature, chunk lengths and checksums, header
 * values, the size limit, and that the compressed data inflate to exactly the bytes which the
 * header promises. pngjs is lenient here (it pads, skips checksums of chunks it does not know, and
 * inflates without a bound), so nothing reaches it that this has not seen.
 */
import { crc32, inflateSync } from "node:zlib";
import { expected, Spr2qError } from "../errors.ts";

/** First bytes of every PNG. */
export const SIGNATURE: Buffer = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Signature and IHDR chunk together, in bytes. */
export const HEADER_END: number = 8 + 12 + 13;

/** Samples a pixel, and the bit depths allowed, by PNG colour type. */
const COLOR_TYPES: ReadonlyMap<number, { samples: number; depths: readonly number[] }> = new Map([
  [0, { samples: 1, depths: [1, 2, 4, 8, 16] }],
  [2, { samples: 3, depths: [8, 16] }],
  [3, { samples: 1, depths: [1, 2, 4, 8] }],
  [4, { samples: 2, depths: [8, 16] }],
  [6, { samples: 4, depths: [8, 16] }],
]);

/** PNG colour type of 1, 2, 3, 4 channels. */
export const COLOR_TYPE_OF_CHANNELS = { 1: 0, 2: 4, 3: 2, 4: 6 } as const;

/** First x, first y, step x, step y of the seven passes of an interlaced image. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** What the container of a sound PNG says. */
export interface PngContainer {
  readonly width: number;
  readonly height: number;
  readonly bitDepth: number;
  readonly colorType: number;
  readonly interlaced: boolean;
  /** Contents of the tRNS chunk; null where there is none. */
  readonly transparency: Buffer | null;
  /** Bytes up to and with IEND; what follows is ignored, as other readers do. */
  readonly size: number;
}

/**
 * What the first {@link HEADER_END} bytes of a PNG say; more may follow. Throws ERR_IMAGE where they
 * are no PNG's, or the image has more than `maxSamples` samples.
 */
export function checkHeader(bytes: Uint8Array, name: string, maxSamples: number): Header {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (!b.subarray(0, 8).equals(SIGNATURE)) {
    throw expected("ERR_IMAGE", name, "a PNG image", b.length === 0 ? "an empty file" : "another");
  }
  return readHeader(b, name, damaged(name), maxSamples);
}

/** Checks all of a PNG but its filter bytes. Throws ERR_IMAGE, naming `name` and the fault. */
export function checkPng(bytes: Uint8Array, name: string, maxSamples: number): PngContainer {
  const header = checkHeader(bytes, name, maxSamples);
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const fail = damaged(name);
  let palette = 0;
  let transparency: Buffer | null = null;
  const data: Buffer[] = [];
  for (let at = 8; ; ) {
    const { type, body, next } = readChunk(b, at, fail);
    at = next;
    if (type === "IDAT") data.push(body);
    else if (data.length > 0 && (type === "PLTE" || type === "tRNS")) throw fail(`late ${type}`);
    else if (type === "PLTE") palette = checkPalette(body, palette, fail);
    else if (type === "tRNS") transparency = checkTransparency(body, header, palette, fail);
    else if (type === "IEND") {
      if (header.colorType === 3 && palette === 0) throw fail("its palette is missing");
      checkData(data, header, fail);
      return { ...header, transparency, size: at };
    } else if (/^[A-Z]/.test(type) && at > HEADER_END) {
      throw fail(`unknown critical chunk ${type}`); // a capital says that it may not be skipped
    }
  }
}

type Fail = (what: string) => Spr2qError;

function damaged(name: string): Fail {
  return (what) => new Spr2qError("ERR_IMAGE", `${name}: damaged PNG: ${what}`);
}

/** The part of {@link PngContainer} that the first chunk holds. */
export type Header = Omit<PngContainer, "transparency" | "size">;

function readChunk(
  b: Buffer,
  at: number,
  fail: Fail,
): { type: string; body: Buffer; next: number } {
  if (at + 12 > b.length) throw fail("it ends before its IEND chunk (cut short?)");
  const length = b.readUInt32BE(at);
  const type = b.toString("latin1", at + 4, at + 8);
  if (at + 12 + length > b.length) throw fail(`chunk ${type} is cut short`);
  const end = at + 8 + length;
  if (crc32(b.subarray(at + 4, end)) !== b.readUInt32BE(end)) {
    throw fail(`checksum of chunk ${JSON.stringify(type)} is wrong`);
  }
  return { type, body: b.subarray(at + 8, end), next: end + 4 };
}

function readHeader(b: Buffer, name: string, fail: Fail, maxSamples: number): Header {
  const { type, body } = readChunk(b, 8, fail);
  if (type !== "IHDR" || body.length !== 13) throw fail("it does not begin with IHDR");
  const width = body.readUInt32BE(0);
  const height = body.readUInt32BE(4);
  const [bitDepth, colorType, compression, filter, interlace] = body.subarray(8);
  const kind = COLOR_TYPES.get(colorType);
  if (!kind?.depths.includes(bitDepth)) {
    throw fail(`colour type ${colorType} with ${bitDepth} bits is none of PNG's`);
  }
  if (compression !== 0 || filter !== 0 || interlace > 1) throw fail("an unknown method");
  if (width === 0 || height === 0) {
    throw expected("ERR_IMAGE", `${name}: size`, "sides of 1 pixel or more", `${width}x${height}`);
  }
  // A palette comes out as RGBA.
  const samples = width * height * (colorType === 3 ? 4 : kind.samples);
  if (samples > maxSamples) {
    const got = `${width}x${height}, which is ${samples} samples`;
    const fix = "Cut it into parts first.";
    throw expected("ERR_IMAGE", `${name}: size`, `at most ${maxSamples} samples`, got, fix);
  }
  return { width, height, bitDepth, colorType, interlaced: interlace === 1 };
}

function checkPalette(body: Buffer, before: number, fail: Fail): number {
  const count = body.length / 3;
  if (before > 0 || !Number.isInteger(count) || count < 1 || count > 256) {
    throw fail("its palette is malformed");
  }
  return count;
}

function checkTransparency(
  body: Buffer,
  header: Header,
  palette: number,
  fail: Fail,
): Buffer | null {
  const { colorType } = header;
  if (colorType > 3) return null; // it has alpha already, so the chunk means nothing
  const sound =
    colorType === 3
      ? body.length >= 1 && body.length <= palette
      : body.length === (colorType === 0 ? 2 : 6);
  if (!sound) throw fail("its transparency chunk is malformed");
  return body;
}

/** Throws unless the IDAT chunks inflate to the header's number of bytes, no more, no fewer. */
function checkData(data: readonly Buffer[], header: Header, fail: Fail): void {
  const wanted = rawBytes(header);
  let got: number;
  try {
    got = inflateSync(Buffer.concat(data), { maxOutputLength: wanted + 1 }).length;
  } catch (cause) {
    const error = fail("its pixel data do not inflate (cut short?)");
    error.cause = cause;
    throw error;
  }
  if (got !== wanted) throw fail(`its pixel data have ${got} bytes in place of ${wanted}`);
}

/** Bytes of all rows, each with its filter byte, over all passes. */
function rawBytes(header: Header): number {
  const { width, height, bitDepth, colorType } = header;
  const bits = bitDepth * (COLOR_TYPES.get(colorType)?.samples ?? 0);
  const plane = (w: number, h: number) => (w === 0 ? 0 : h * (1 + Math.ceil((w * bits) / 8)));
  if (!header.interlaced) return plane(width, height);
  let total = 0;
  for (const [x, y, stepX, stepY] of ADAM7) {
    const w = Math.ceil(Math.max(0, width - x) / stepX);
    const h = Math.ceil(Math.max(0, height - y) / stepY);
    total += plane(w, h);
  }
  return total;
}
