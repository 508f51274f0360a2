/**
 * Reader of zip archives as PyTorch writes them: stored entries (never compressed), found through
 * the central directory, ZIP64 records honoured. Nothing is allocated from a number that the file
 * claims: every offset and size is checked against the bytes at hand first, and the CRC of every
 * entry is verified, so a damaged archive is refused as a whole.
 */
import { crc32 } from "node:zlib";
import { Spr2qError } from "../errors.ts";

/** Entries an archive may list; the largest checkpoints known hold some ten thousand. */
const MAX_ENTRIES = 100_000;
const END_SIZE = 22;
const CENTRAL_SIZE = 46;
const LOCAL_SIZE = 30;
const END64_SIZE = 56;
const LOCATOR64_SIZE = 20;
/** 0xFFFFFFFF in a 32-bit field: the true number is in a ZIP64 record. */
const SEE_ZIP64 = 0xffffffff;

interface Entry {
  readonly name: string;
  readonly crc: number;
  readonly size: number;
  readonly start: number;
}

/** True where `bytes` begin like a zip archive. */
export function isZip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 3 && bytes[3] === 4;
}

/**
 * Contents of all entries of an archive, by name, as views of `bytes`. Folders are left out.
 * Throws ERR_CHECKPOINT (naming `file`) for anything damaged, compressed, encrypted or split.
 */
export function readZip(bytes: Uint8Array, file: string): Map<string, Uint8Array> {
  const reader = new ZipReader(bytes, file);
  return reader.read();
}

class ZipReader {
  private readonly bytes: Buffer;
  private readonly file: string;

  constructor(bytes: Uint8Array, file: string) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.file = file;
  }

  read(): Map<string, Uint8Array> {
    const contents = new Map<string, Uint8Array>();
    const spans: { readonly start: number; readonly end: number; readonly name: string }[] = [];
    for (const entry of this.centralDirectory()) {
      const begin = this.dataStart(entry);
      const data = this.bytes.subarray(begin, begin + entry.size);
      if (crc32(data) !== entry.crc) throw this.damaged(`checksum of "${entry.name}" is wrong`);
      if (contents.has(entry.name)) throw this.damaged(`"${entry.name}" is listed twice`);
      spans.push({ start: entry.start, end: begin + entry.size, name: entry.name });
      if (!entry.name.endsWith("/")) contents.set(entry.name, data);
    }
    spans.sort((a, b) => a.start - b.start);
    for (let i = 1; i < spans.length; i++) {
      if (spans[i].start < spans[i - 1].end) {
        throw this.damaged(`"${spans[i].name}" overlaps "${spans[i - 1].name}"`);
      }
    }
    return contents;
  }

  private damaged(what: string): Spr2qError {
    const hint = "The file is damaged or was cut short; download it again";
    return new Spr2qError("ERR_CHECKPOINT", `${this.file}: zip archive: ${what}. ${hint}`);
  }

  /** Throws unless `size` bytes from `at` lie inside the file. */
  private need(at: number, size: number, what: string): void {
    if (!Number.isSafeInteger(at) || !Number.isSafeInteger(size) || at < 0 || size < 0) {
      throw this.damaged(`${what} has an impossible position`);
    }
    if (at + size > this.bytes.length) throw this.damaged(`${what} lies outside the file`);
  }

  /** Position of the end-of-directory record, whose comment must reach the end of the file. */
  private endRecord(): number {
    const last = this.bytes.length - END_SIZE;
    for (let at = last; at >= 0 && at >= last - 0xffff; at--) {
      if (this.bytes.readUInt32LE(at) !== 0x06054b50) continue;
      if (at + END_SIZE + this.bytes.readUInt16LE(at + 20) === this.bytes.length) return at;
    }
    throw this.damaged("the directory at its end is missing");
  }

  /** Where the directory lies and how many entries it lists, from the plain or ZIP64 record. */
  private directoryExtent(): { count: number; size: number; start: number; end: number } {
    const b = this.bytes;
    const at = this.endRecord();
    const plain = {
      count: b.readUInt16LE(at + 10),
      size: b.readUInt32LE(at + 12),
      start: b.readUInt32LE(at + 16),
      end: at,
    };
    if (b.readUInt16LE(at + 4) !== 0 && b.readUInt16LE(at + 4) !== 0xffff) {
      throw this.damaged("it is one part of a split archive");
    }
    const locator = at - LOCATOR64_SIZE;
    if (locator < 0 || b.readUInt32LE(locator) !== 0x07064b50) return plain;
    const end64 = Number(b.readBigUInt64LE(locator + 8));
    this.need(end64, END64_SIZE, "the ZIP64 record");
    if (b.readUInt32LE(end64) !== 0x06064b50) throw this.damaged("the ZIP64 record is missing");
    return {
      count: Number(b.readBigUInt64LE(end64 + 32)),
      size: Number(b.readBigUInt64LE(end64 + 40)),
      start: Number(b.readBigUInt64LE(end64 + 48)),
      end: end64,
    };
  }

  private centralDirectory(): Entry[] {
    const extent = this.directoryExtent();
    this.need(extent.start, extent.size, "the directory");
    if (extent.start + extent.size !== extent.end) {
      throw this.damaged("the directory does not end where its record says");
    }
    if (extent.count > MAX_ENTRIES || extent.count * CENTRAL_SIZE > extent.size) {
      throw this.damaged(`${extent.count} entries are claimed, which cannot be`);
    }
    const entries: Entry[] = [];
    let at = extent.start;
    for (let i = 0; i < extent.count; i++) {
      const { entry, next } = this.centralEntry(at, extent.end);
      entries.push(entry);
      at = next;
    }
    if (at !== extent.end) throw this.damaged("the directory lists fewer entries than it holds");
    return entries;
  }

  private centralEntry(at: number, end: number): { entry: Entry; next: number } {
    const b = this.bytes;
    if (at + CENTRAL_SIZE > end || b.readUInt32LE(at) !== 0x02014b50) {
      throw this.damaged("an entry of the directory is malformed");
    }
    const nameSize = b.readUInt16LE(at + 28);
    const extraSize = b.readUInt16LE(at + 30);
    const next = at + CENTRAL_SIZE + nameSize + extraSize + b.readUInt16LE(at + 32);
    if (next > end) throw this.damaged("an entry of the directory is malformed");
    const name = b.toString("utf8", at + CENTRAL_SIZE, at + CENTRAL_SIZE + nameSize);
    if (b.readUInt16LE(at + 8) & 1) throw this.damaged(`"${name}" is encrypted`);
    if (b.readUInt16LE(at + 10) !== 0) throw this.damaged(`"${name}" is compressed, not stored`);
    const fields = [b.readUInt32LE(at + 24), b.readUInt32LE(at + 20), b.readUInt32LE(at + 42)];
    const extra = b.subarray(
      at + CENTRAL_SIZE + nameSize,
      at + CENTRAL_SIZE + nameSize + extraSize,
    );
    const [size, packed, start] = this.widen(fields, extra, name);
    if (size !== packed) throw this.damaged(`"${name}" has two sizes`);
    return { entry: { name, crc: b.readUInt32LE(at + 16), size, start }, next };
  }

  /** Replaces 32-bit fields that say "see ZIP64" by the numbers of the ZIP64 extra block. */
  private widen(fields: readonly number[], extra: Buffer, name: string): number[] {
    if (!fields.includes(SEE_ZIP64)) return [...fields];
    for (let at = 0; at + 4 <= extra.length; ) {
      const size = extra.readUInt16LE(at + 2);
      if (extra.readUInt16LE(at) === 1 && at + 4 + size <= extra.length) {
        let from = at + 4;
        return fields.map((field) => {
          if (field !== SEE_ZIP64) return field;
          if (from + 8 > at + 4 + size) throw this.damaged(`"${name}" lacks its ZIP64 size`);
          from += 8;
          return Number(extra.readBigUInt64LE(from - 8));
        });
      }
      at += 4 + size;
    }
    throw this.damaged(`"${name}" lacks its ZIP64 size`);
  }

  /** First byte of the entry's data; its local header must carry the same name. */
  private dataStart(entry: Entry): number {
    const b = this.bytes;
    this.need(entry.start, LOCAL_SIZE, `"${entry.name}"`);
    if (b.readUInt32LE(entry.start) !== 0x04034b50) {
      throw this.damaged(`"${entry.name}" is not where the directory says`);
    }
    const nameSize = b.readUInt16LE(entry.start + 26);
    const begin = entry.start + LOCAL_SIZE + nameSize + b.readUInt16LE(entry.start + 28);
    this.need(begin, entry.size, `"${entry.name}"`);
    const name = b.toString("utf8", entry.start + LOCAL_SIZE, entry.start + LOCAL_SIZE + nameSize);
    if (name !== entry.name) throw this.damaged(`"${entry.name}" has another name in its header`);
    return begin;
  }
}
