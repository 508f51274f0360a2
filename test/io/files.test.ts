import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ensureWritableDir, fillFileAtomic, ioError, writeFileAtomic } from "../../lib/io/files.ts";
import { refusalOf, temporaryFolder } from "./helpers.ts";

const BYTES = Uint8Array.of(1, 2, 3);

test("a new file is written whole and leaves nothing beside it", async () => {
  const folder = temporaryFolder();
  await writeFileAtomic(join(folder, "a.bin"), BYTES);
  expect(readFileSync(join(folder, "a.bin"))).toEqual(Buffer.from(BYTES));
  expect(readdirSync(folder)).toEqual(["a.bin"]);
});

test("an old file is replaced, and keeps its mode", async () => {
  const path = join(temporaryFolder(), "a.bin");
  writeFileSync(path, "something longer than the new content");
  chmodSync(path, 0o640);
  await writeFileAtomic(path, BYTES);
  expect(readFileSync(path)).toEqual(Buffer.from(BYTES));
  expect(statSync(path).mode & 0o777).toBe(0o640);
});

test("a file that is filled part by part appears when it is complete", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "a.bin");
  await fillFileAtomic(path, async (append) => {
    for (let i = 0; i < 100; i++) await append(Uint8Array.of(i, i));
    expect(existsSync(path)).toBe(false);
  });
  expect([...readFileSync(path)]).toEqual(Array.from({ length: 200 }, (_, i) => i >> 1));
  expect(readdirSync(folder)).toEqual(["a.bin"]);
});

test("an error while a file is filled passes, and leaves what was there", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "a.bin");
  await writeFileAtomic(path, BYTES);
  const broken = new Error("no more");
  const filling = fillFileAtomic(path, async (append) => {
    await append(BYTES);
    throw broken;
  });
  await expect(filling).rejects.toBe(broken);
  expect(readFileSync(path)).toEqual(Buffer.from(BYTES));
  expect(readdirSync(folder)).toEqual(["a.bin"]);
});

test("a symbolic link is followed, not replaced", async () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "real"));
  writeFileSync(join(folder, "real", "a"), "old");
  symlinkSync(join("real", "a"), join(folder, "link"));
  await writeFileAtomic(join(folder, "link"), BYTES);
  expect(lstatSync(join(folder, "link")).isSymbolicLink()).toBe(true);
  expect(readFileSync(join(folder, "real", "a"))).toEqual(Buffer.from(BYTES));
  expect(readdirSync(join(folder, "real"))).toEqual(["a"]);
});

test("many writers of one file leave the whole content of one of them", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "a");
  const contents = Array.from({ length: 8 }, (_, i) => new Uint8Array(5000).fill(i));
  await Promise.all(contents.map((bytes) => writeFileAtomic(path, bytes)));
  const got = readFileSync(path);
  expect(got.equals(Buffer.alloc(5000, got[0]))).toBe(true);
  expect(readdirSync(folder)).toEqual(["a"]);
});

test("when the rename fails the temporary file is removed and the reason told", async () => {
  const folder = temporaryFolder();
  const text = await refusalOf(writeFileAtomic(join(folder, "n".repeat(300)), BYTES));
  expect(text).toMatch(/^ERR_IO: could not write: .*the name is too long \(ENAMETOOLONG\)/);
  expect(readdirSync(folder)).toEqual([]);
});

test("when the writing fails the old file stays and the temporary one is removed", async () => {
  const folder = temporaryFolder();
  const path = join(folder, "a");
  writeFileSync(path, "old");
  const wrong = 7 as unknown as Uint8Array;
  expect(await refusalOf(writeFileAtomic(path, wrong))).toMatch(/^ERR_IO/);
  expect(readFileSync(path, "utf8")).toBe("old");
  expect(readdirSync(folder)).toEqual(["a"]);
});

test("a folder, a missing folder, and a path through a file are refused with their reasons", async () => {
  const folder = temporaryFolder();
  expect(await refusalOf(writeFileAtomic(folder, BYTES))).toMatch(/ERR_IO.*it is a folder/);
  const missing = join(folder, "none", "a");
  expect(await refusalOf(writeFileAtomic(missing, BYTES))).toMatch(/ERR_IO.*does not exist/);
  writeFileSync(join(folder, "file"), "");
  const through = join(folder, "file", "a");
  expect(await refusalOf(writeFileAtomic(through, BYTES))).toMatch(/ERR_IO.*\(ENOTDIR\)/);
});

test.skipIf(!existsSync("/dev/full"))(
  "a device is written to, not replaced; a full one says so",
  async () => {
    await writeFileAtomic("/dev/null", BYTES);
    expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
    const text = await refusalOf(writeFileAtomic("/dev/full", BYTES));
    expect(text).toMatch(/^ERR_IO: .*the disk is full \(ENOSPC\)/);
  },
);

test("every system error that a disk gives has its reason in words", () => {
  const reasons = { ENOSPC: "full", EACCES: "permission", EROFS: "read-only", ENOTDIR: "a file" };
  for (const [code, words] of Object.entries(reasons)) {
    const error = ioError("write", "out/x.png", { code });
    expect([error.code, error.cause]).toEqual(["ERR_IO", { code }]);
    expect(error.message).toContain(words);
    expect(error.message).toContain("out/x.png");
  }
  expect(ioError("write", "x", new Error("odd")).message).toBe("could not write: x: odd");
});

test("an output folder is made with its parents and left empty", async () => {
  const path = join(temporaryFolder(), "a", "b");
  await ensureWritableDir(path);
  await ensureWritableDir(path);
  expect(readdirSync(path)).toEqual([]);
});

test("an output folder that is a file, or lies below one, is refused", async () => {
  const file = join(temporaryFolder(), "file");
  writeFileSync(file, "");
  expect(await refusalOf(ensureWritableDir(file))).toMatch(/^ERR_IO: .*\(ENOTDIR\)/);
  expect(await refusalOf(ensureWritableDir(join(file, "a")))).toMatch(/^ERR_IO: .*\(ENOTDIR\)/);
});

test.skipIf(process.getuid?.() === 0)("a folder without permission is refused", async () => {
  const folder = temporaryFolder();
  chmodSync(folder, 0o500);
  expect(await refusalOf(ensureWritableDir(folder))).toMatch(/^ERR_IO: .*permission/);
});

test.skipIf(!existsSync("/proc/self"))(
  "a folder that the system will not make is ERR_IO at once",
  async () => {
    expect(await refusalOf(ensureWritableDir("/proc/no/such/folder"))).toMatch(/^ERR_IO: .*\/proc/);
  },
);
