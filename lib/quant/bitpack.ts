/** n-bit codes in bytes: little-endian within the byte, every row starting on a byte. */
import type { U8 } from "../binding.ts";

/** Packs codes of (rows, columns) at `bits` each; every row starts on a byte. */
export function packCodes(codes: Uint8Array, rows: number, columns: number, bits: number): U8 {
  const rowBytes = Math.ceil((columns * bits) / 8);
  const packed = new Uint8Array(rows * rowBytes);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const bit = c * bits;
      packed[r * rowBytes + (bit >> 3)] |= codes[r * columns + c] << (bit & 7);
    }
  }
  return packed;
}

/** The inverse of packCodes: one code a byte. */
export function unpackCodes(packed: Uint8Array, rows: number, columns: number, bits: number): U8 {
  const rowBytes = Math.ceil((columns * bits) / 8);
  const codes = new Uint8Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const bit = c * bits;
      codes[r * columns + c] = (packed[r * rowBytes + (bit >> 3)] >> (bit & 7)) & (2 ** bits - 1);
    }
  }
  return codes;
}
