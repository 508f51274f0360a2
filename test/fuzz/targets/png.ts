/**
 * PNG files through the package's own entry: the bytes as a file (with its checksums put right, or as
 * they are), or as the parameters of a file that is made here: sides, depth, colour type, interlace,
 * palette, transparency, and the rows with their filter bytes.
 */
import { crc32 } from "node:zlib";
import { decodePng, encodePng } from "../../../lib/io/png.ts";
import { SIGNATURE } from "../../../lib/io/png_container.ts";
import { toRgb8, toRgbFloat } from "../../../lib/io/raster.ts";
import { chunk, makePng } from "../../io/make_png.ts";
import { must, orRefusal } from "./outcome.ts";

const [RAW, MENDED, MADE] = [0, 1, 2];
/** Samples an image may have here, so that one takes well below a millisecond. */
const MOST_SAMPLES = 4096;
const KINDS = [
  [0, 1],
  [0, 2],
  [0, 4],
  [0, 8],
  [0, 16],
  [2, 8],
  [2, 16],
  [3, 1],
  [3, 2],
  [3, 4],
  [3, 8],
  [4, 8],
  [4, 16],
  [6, 8],
  [6, 16],
] as const;

export const words = [
  "IHDR",
  "PLTE",
  "tRNS",
  "IDAT",
  "IEND",
  "gAMA",
  "bKGD",
  "sBIT",
  "ABCD",
  "\x00\x00\x00\x01",
  "\x00\x00\x00\x0d",
  "\xff\xff\xff\xff",
  "\x7f\xff\xff\xff",
];

export function seeds(): Uint8Array[] {
  const files = KINDS.flatMap(([colorType, bitDepth], i) =>
    [false, true].map((interlaced) =>
      makePng({
        width: 5 + i,
        height: 3 + (i % 4),
        bitDepth,
        colorType,
        interlaced,
        palette: colorType === 3 ? [9, 8, 7, 200, 100, 50] : undefined,
        transparency:
          [0, 2, 3].includes(colorType) && i % 2
            ? Buffer.alloc(colorType === 0 ? 2 : colorType === 2 ? 6 : 1)
            : undefined,
        sample: (x, y, c) => (x * 3 + y * 5 + c * 7) % (colorType === 3 ? 2 : 2 ** bitDepth),
      }),
    ),
  );
  const made = KINDS.map((_, i) =>
    Buffer.from([MADE, i, i % 2, 7, 5, 6, 2, 255, ...Array(60).keys()]),
  );
  return [...files.map((file, i) => Buffer.from([i % 2 ? RAW : MENDED, ...file])), ...made];
}

function mend(bytes: Buffer): void {
  for (let at = 8; at + 12 <= bytes.length; ) {
    const end = at + 8 + bytes.readUInt32BE(at);
    if (end + 4 > bytes.length) return;
    bytes.writeUInt32BE(crc32(bytes.subarray(at + 4, end)), end);
    at = end + 4;
  }
}

/** A zlib stream of one block that is not compressed: quicker than zlib itself. */
function stored(rows: Buffer): Buffer {
  let [a, b] = [1, 0];
  for (const byte of rows) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  const out = Buffer.alloc(rows.length + 11);
  out.set([0x78, 1, 1]);
  out.writeUInt16LE(rows.length & 0xffff, 3);
  out.writeUInt16LE(~rows.length & 0xffff, 5);
  out.set(rows, 7);
  out.writeUInt16BE(b, 7 + rows.length);
  out.writeUInt16BE(a, 9 + rows.length);
  return out;
}

/** kind, interlace, width, height, bytes of the palette, of the transparency, rows too few or many. */
function make(p: Buffer): Buffer {
  const [kind, interlace, width, height, palette, transparency, spare] = p;
  const [colorType, bitDepth] = KINDS[kind % KINDS.length];
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([kind >= 240 ? kind & 31 : bitDepth, colorType, 0, 0, interlace % 3], 8);
  const rest = p.subarray(7);
  const body = (size: number) => Buffer.alloc(size, rest.length ? rest : 0);
  const samples = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }[colorType] ?? 1;
  const plane = (x: number, y: number, dx: number, dy: number) => {
    const w = Math.ceil(Math.max(0, width - x) / dx);
    return w
      ? Math.ceil(Math.max(0, height - y) / dy) * (1 + Math.ceil((w * bitDepth * samples) / 8))
      : 0;
  };
  const size =
    interlace % 3 === 1
      ? plane(0, 0, 8, 8) +
        plane(4, 0, 8, 8) +
        plane(0, 4, 4, 8) +
        plane(2, 0, 4, 4) +
        plane(0, 2, 2, 4) +
        plane(1, 0, 2, 2) +
        plane(0, 1, 1, 2)
      : plane(0, 0, 1, 1);
  const rows = body(Math.min(0xffff, Math.max(0, size + (spare >= 240 ? spare - 248 : 0))));
  // Mostly filters that exist: a row begins where the last one ended.
  if (spare < 200 && interlace % 3 === 0 && height) {
    const row = rows.length / height;
    for (let y = 0; y < height; y++) rows[y * row] %= 5;
  } else if (spare < 220)
    rows.forEach((value, i) => {
      rows[i] = value % 5;
    });
  const data = stored(rows);
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    ...(palette ? [chunk("PLTE", body(palette < 250 ? palette * 3 : palette))] : []),
    ...(transparency ? [chunk("tRNS", body(transparency))] : []),
    chunk("IDAT", data),
    chunk("IEND"),
  ]);
}

export function fuzz(input: Buffer): void {
  if (input.length < 8) return;
  let file = input.subarray(1);
  if (input[0] === MENDED) mend(file);
  if (input[0] === MADE) file = make(file);
  const image = orRefusal(() => decodePng(file, "file.png", { maxSamples: MOST_SAMPLES }));
  if (!image) return;
  const { width, height, channels, data } = image;
  must(data.length === width * height * channels, "an image has its samples");
  must(
    toRgbFloat(image).every((value) => value >= 0 && value <= 1),
    "floats lie in 0 ... 1",
  );
  must(toRgb8(image).data.length === width * height * 3, "RGB has three channels");
  if (input[0] !== MADE || file.length % 8) return;
  const again = decodePng(encodePng(image), "again.png");
  must(
    again.channels === channels && again.data.every((value, i) => value === data[i]),
    "a written image reads the same",
  );
}
