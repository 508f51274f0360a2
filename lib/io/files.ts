/**
 * Writing files so that nobody ever sees half of one: into a temporary file beside the target,
 * flushed to the disk, then renamed over it.
 */
import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Spr2qError } from "../errors.ts";

/** What the usual system errors mean to whoever runs the command. */
const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file would exceed the size limit",
  EACCES: "permission is missing",
  EPERM: "permission is missing",
  EROFS: "the file system is read-only",
  ENOTDIR: "a part of the path is a file, not a folder",
  EISDIR: "it is a folder",
  ENOENT: "it does not exist",
  ENAMETOOLONG: "the name is too long",
  EMFILE: "too many files are open",
};

/** ERR_IO that says what could not be done, to which path, and why ("could not WHAT: PATH: …"). */
export function ioError(what: string, path: string, cause: unknown): Spr2qError {
  const code = (cause as { code?: unknown } | null)?.code;
  const name = typeof code === "string" ? code : "";
  const reason = REASONS[name] ?? (cause instanceof Error ? cause.message : String(cause));
  const suffix = name ? ` (${name})` : "";
  return new Spr2qError("ERR_IO", `could not ${what}: ${path}: ${reason}${suffix}`, { cause });
}

/** Appends bytes to a file under way; ERR_IO where that fails. */
export type Append = (bytes: Uint8Array) => Promise<void>;

/** {@link fillFileAtomic} with all of the content at hand. */
export function writeFileAtomic(path: string, bytes: Uint8Array): Promise<void> {
  return fillFileAtomic(path, (append) => append(bytes));
}

/**
 * Replaces `path` as a whole by what `fill` appends, or leaves it as it was. A symbolic link is
 * followed; a device or pipe (/dev/stdout) is written to directly. Throws ERR_IO, or what `fill`
 * throws, and removes the temporary file on failure.
 */
export async function fillFileAtomic(
  path: string,
  fill: (append: Append) => Promise<void>,
): Promise<void> {
  const target = await describeTarget(path);
  if (target.kind === "stream") return fillOpened(path, path, "w", 0o666, fill);
  const temporary = join(dirname(target.path), `.spr2q-${process.pid}-${randomName()}.tmp`);
  try {
    await fillOpened(path, temporary, "wx", target.mode, fill);
    await naming(path, rename(temporary, target.path));
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw cause;
  }
  await syncFolder(dirname(target.path));
}

function randomName(): string {
  return randomBytes(6).toString("hex");
}

interface Target {
  readonly kind: "file" | "stream";
  readonly path: string;
  readonly mode: number;
}

/** What lies at `path` now. Where that cannot be told, the write itself will say why. */
async function describeTarget(path: string): Promise<Target> {
  try {
    const resolved = await realpath(path);
    const found = await stat(resolved);
    if (found.isDirectory()) throw ioError("write", path, { code: "EISDIR" });
    const kind = found.isFile() ? "file" : "stream";
    return { kind, path: resolved, mode: found.mode & 0o777 };
  } catch (cause) {
    if (cause instanceof Spr2qError) throw cause;
    return { kind: "file", path, mode: 0o666 };
  }
}

/** A failure of `action` becomes the ERR_IO of writing `path`. */
async function naming<T>(path: string, action: Promise<T>): Promise<T> {
  try {
    return await action;
  } catch (cause) {
    throw ioError("write", path, cause);
  }
}

/** Opens `at`, lets `fill` write, and closes it; a new file ("wx") is flushed to the disk. */
async function fillOpened(
  path: string,
  at: string,
  flags: "w" | "wx",
  mode: number,
  fill: (append: Append) => Promise<void>,
): Promise<void> {
  const file: FileHandle = await naming(path, open(at, flags, mode));
  try {
    await fill((bytes) => naming(path, file.writeFile(bytes)));
    if (flags === "wx") await naming(path, file.sync());
  } finally {
    await naming(path, file.close());
  }
}

/** Makes the rename itself durable. Some systems cannot sync a folder; the data is safe anyway. */
async function syncFolder(path: string): Promise<void> {
  try {
    const folder = await open(path, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch {
    // The file is complete under its name; only its survival of a power cut is less certain.
  }
}

/**
 * Makes a folder and those above it, one by one: mkdir's own recursion never ends where a file system
 * such as /proc refuses a folder as if the one above it were missing.
 */
async function makeFolder(path: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found?.isDirectory()) return;
  if (dirname(path) !== path) await makeFolder(dirname(path));
  await mkdir(path).catch(async (cause) => {
    if ((await stat(path).catch(() => null))?.isDirectory()) return; // made by another process
    throw cause;
  });
}

/**
 * Makes the folder `path` (and its parents) if need be, and proves by a trial file that files can
 * be made in it: a command fails here, before hours of work. Throws ERR_IO.
 */
export async function ensureWritableDir(path: string): Promise<void> {
  const trial = join(path, `.spr2q-${process.pid}-${randomName()}.tmp`);
  try {
    await makeFolder(resolve(path));
    const file = await open(trial, "wx");
    await file.close();
    await rm(trial);
  } catch (cause) {
    const code = (cause as { code?: unknown }).code;
    // mkdir says EEXIST where the path itself is a file.
    throw ioError("write to the folder", path, code === "EEXIST" ? { code: "ENOTDIR" } : cause);
  }
}
