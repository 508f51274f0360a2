/** What a shared library asks of and offers to the machine: read from its ELF sections. */

/** Kinds of sections, as <elf.h> numbers them. */
const DYNAMIC = 6;
const DYNAMIC_SYMBOLS = 11;
const VERSIONS_NEEDED = 0x6ffffffe;

/**
 * Of a 64-bit little-endian library: `machine` ("x64" or "arm64"), `exported` symbols, `needed`
 * libraries, and the `versions` of symbols that must be there, for example "GLIBC_2.34".
 */
export function readLibrary(file) {
  if (file.readUInt32BE(0) !== 0x7f454c46) throw new Error("this is no ELF file");
  const u64 = (at) => Number(file.readBigUInt64LE(at));
  const machine = { 62: "x64", 183: "arm64" }[file.readUInt16LE(18)] ?? "another";
  const [first, each, count] = [u64(40), file.readUInt16LE(58), file.readUInt16LE(60)];
  const sections = Array.from({ length: count }, (_, i) => {
    const at = first + i * each;
    const type = file.readUInt32LE(at + 4);
    const [offset, size] = [u64(at + 24), u64(at + 32)];
    return {
      type,
      offset,
      size,
      link: file.readUInt32LE(at + 40),
      info: file.readUInt32LE(at + 44),
    };
  });
  const text = (table, at) => {
    const from = table.offset + at;
    return file.toString("latin1", from, file.indexOf(0, from));
  };
  const [exported, needed, versions] = [[], [], []];
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

/** The newest glibc 2.x that a library needs: its x; 0 where it needs none. */
export function glibcOf({ versions }) {
  const numbers = versions
    .filter((version) => version.startsWith("GLIBC_2."))
    .map((version) => Number(version.slice(8).split(".")[0]));
  return Math.max(0, ...numbers);
}
