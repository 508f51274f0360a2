/** What a shared library asks of and offers to the machine: read from its ELF sections. */

interface Section {
  readonly name: string;
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
  /** Entries, where the kind of section says so here. */
  readonly info: number;
}

/** Kinds of sections, as <elf.h> numbers them. */
const DYNAMIC = 6;
const DYNAMIC_SYMBOLS = 11;
const VERSIONS_NEEDED = 0x6ffffffe;

/** Of a 64-bit little-endian library. */
export interface Library {
  /** "x64" or "arm64". */
  readonly machine: string;
  /** Symbols that others may use. */
  readonly exported: readonly string[];
  /** Libraries that must be there. */
  readonly needed: readonly string[];
  /** Versions of symbols that must be there, for example "GLIBC_2.34". */
  readonly versions: readonly string[];
}

export function readLibrary(file: Buffer): Library {
  if (file.readUInt32BE(0) !== 0x7f454c46) throw new Error("this is no ELF file");
  const u64 = (at: number): number => Number(file.readBigUInt64LE(at));
  const machine = { 62: "x64", 183: "arm64" }[file.readUInt16LE(18)] ?? "another";
  const [first, each, count] = [u64(40), file.readUInt16LE(58), file.readUInt16LE(60)];
  const sections = Array.from({ length: count }, (_, i): Section => {
    const at = first + i * each;
    return {
      name: "",
      type: file.readUInt32LE(at + 4),
      offset: u64(at + 24),
      size: u64(at + 32),
      link: file.readUInt32LE(at + 40),
      info: file.readUInt32LE(at + 44),
    };
  });
  const text = (table: Section, at: number): string => {
    const from = table.offset + at;
    return file.toString("latin1", from, file.indexOf(0, from));
  };
  const exported: string[] = [];
  const needed: string[] = [];
  const versions: string[] = [];
  for (const section of sections) {
    const strings = sections[section.link];
    const end = section.offset + section.size;
    if (section.type === DYNAMIC_SYMBOLS) {
      for (let at = section.offset; at < end; at += 24) {
        const global = file[at + 4] >> 4 !== 0;
        const defined = file.readUInt16LE(at + 6) !== 0;
        if (global && defined) exported.push(text(strings, file.readUInt32LE(at)));
      }
    } else if (section.type === DYNAMIC) {
      for (let at = section.offset; at < end; at += 16) {
        if (u64(at) === 1) needed.push(text(strings, u64(at + 8)));
      }
    } else if (section.type === VERSIONS_NEEDED) {
      for (let at = section.offset, i = 0; i < section.info; i++) {
        let inner = at + file.readUInt32LE(at + 8);
        for (let k = 0; k < file.readUInt16LE(at + 2); k++) {
          versions.push(text(strings, file.readUInt32LE(inner + 8)));
          inner += file.readUInt32LE(inner + 12);
        }
        at += file.readUInt32LE(at + 12);
      }
    }
  }
  return { machine, exported, needed, versions };
}
