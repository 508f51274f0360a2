import { expect, test } from "vitest";
import { isZip, readZip } from "../../lib/io/zip.ts";
import { refusal } from "./helpers.ts";
import { makeZip } from "./make_pth.ts";

const ENTRIES = [
  ["a/one", Buffer.from("hello")],
  ["a/two", Buffer.alloc(300, 7)],
  ["a/empty", Buffer.alloc(0)],
] as const;

for (const zip64 of [false, true]) {
  const kind = zip64 ? "ZIP64" : "plain";

  test(`entries of a ${kind} archive come back by name`, () => {
    const bytes = makeZip(ENTRIES, { zip64 });
    expect(isZip(bytes)).toBe(true);
    const contents = readZip(bytes, "f.zip");
    expect([...contents.keys()]).toEqual(ENTRIES.map(([name]) => name));
    for (const [name, data] of ENTRIES) expect(Buffer.from(contents.get(name)!)).toEqual(data);
  });

  test(`a ${kind} archive cut at any byte is refused`, () => {
    const bytes = makeZip(ENTRIES, { zip64 });
    for (let size = 0; size < bytes.length; size++) {
      expect(refusal(() => readZip(bytes.subarray(0, size), "f.zip"))).toMatch(/ERR_CHECKPOINT/);
    }
  });

  test(`a flipped byte in a ${kind} archive is refused or leaves the contents as they were`, () => {
    const bytes = makeZip(ENTRIES, { zip64 });
    let refused = 0;
    for (let at = 0; at < bytes.length; at++) {
      const bad = Buffer.from(bytes);
      bad[at] ^= 0xff;
      let contents: Map<string, Uint8Array>;
      try {
        contents = readZip(bad, "f.zip");
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_CHECKPOINT" });
        refused++;
        continue;
      }
      for (const [name, data] of ENTRIES) expect(Buffer.from(contents.get(name)!)).toEqual(data);
    }
    expect(refused).toBeGreaterThan(400); // all data, names, offsets and sizes
  });
}

test("a comment after the directory is skipped", () => {
  const bytes = makeZip(ENTRIES);
  bytes.writeUInt16LE(5, bytes.length - 2);
  const withComment = Buffer.concat([bytes, Buffer.from("hello")]);
  expect(readZip(withComment, "f.zip").size).toBe(3);
});

test("a compressed, encrypted or split archive is refused by its name", () => {
  expect(refusal(() => readZip(makeZip(ENTRIES, { method: 8 }), "f.zip"))).toMatch(/compressed/);
  const encrypted = makeZip(ENTRIES);
  const directory = encrypted.indexOf(Buffer.from([0x50, 0x4b, 1, 2]));
  encrypted[directory + 8] |= 1;
  expect(refusal(() => readZip(encrypted, "f.zip"))).toMatch(/f\.zip.*"a\/one" is encrypted/);
  const split = makeZip(ENTRIES);
  split[split.length - 22 + 4] = 3;
  expect(refusal(() => readZip(split, "f.zip"))).toMatch(/split/);
});

test("two entries of one name, or that share bytes, are refused", () => {
  const twice = makeZip([ENTRIES[0], ENTRIES[0]]);
  expect(refusal(() => readZip(twice, "f.zip"))).toMatch(/listed twice/);
  const inner = makeZip([["b", Buffer.from("x")]]);
  const outer = makeZip([
    ["a", inner],
    ["b", Buffer.from("x")],
  ]);
  // The directory's second entry is moved to the header inside of the first one's data.
  const second = outer.lastIndexOf(Buffer.from([0x50, 0x4b, 1, 2]));
  outer.writeUInt32LE(30 + 1 + 4, second + 42);
  expect(refusal(() => readZip(outer, "f.zip"))).toMatch(/"b" overlaps "a"/);
});

test("huge counts, sizes and offsets are refused before anything is made from them", () => {
  const claim = (edit: (bytes: Buffer, directory: number, end: number) => void, zip64 = false) => {
    const bytes = makeZip(ENTRIES, { zip64 });
    edit(bytes, bytes.indexOf(Buffer.from([0x50, 0x4b, 1, 2])), bytes.length - 22);
    return refusal(() => readZip(bytes, "f.zip"));
  };
  expect(claim((b, _, end) => b.writeUInt16LE(65535, end + 10))).toMatch(/65535 entries/);
  expect(claim((b, _, end) => b.writeUInt16LE(2, end + 10))).toMatch(/fewer entries/);
  expect(claim((b, _, end) => b.writeUInt32LE(0xfffffff0, end + 16))).toMatch(/outside the file/);
  expect(claim((b, dir) => b.fill(0xfe, dir + 20, dir + 28))).toMatch(/outside the file/);
  expect(claim((b, dir) => b.fill(0xff, dir + 20, dir + 28))).toMatch(/ZIP64 size/);
  expect(claim((b, dir) => b.writeUInt32LE(3, dir + 42))).toMatch(/not where the directory says/);
  const count64 = (b: Buffer, _: number, end: number) => b.fill(0xff, end - 20 - 24, end - 20 - 16);
  expect(claim(count64, true)).toMatch(/ERR_CHECKPOINT/);
});
