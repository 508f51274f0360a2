/** Which image goes to which file: the arguments of `spr2q upscale`. */
import { realpath, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { expected } from "../errors.ts";
import { ioError } from "../io/files.ts";
import { IMAGE_KINDS, type ImageKind, kindOfName } from "../io/image_kind.ts";
import { listImages } from "../io/images.ts";

/** One image to read, the file to write, and the kind of that file. */
export interface Job {
  readonly in: string;
  readonly out: string;
  readonly kind: ImageKind;
}

/**
 * What to read and where to write: an image goes to a path that ends as an image's, in that kind, or
 * under its own name into a folder, as `format` (default PNG); a folder's images go into a folder.
 * Throws ERR_IO where `input` does not exist, ERR_DATA for a folder without images, and ERR_USAGE
 * where a folder should become a file, two images one file, or a file would replace itself.
 */
export async function planJobs(input: string, output: string, format?: ImageKind): Promise<Job[]> {
  const found = await stat(input).catch((cause) => {
    throw ioError("read the image or folder", input, cause);
  });
  const named = (await isFolder(output)) ? null : kindOfName(output);
  if (found.isDirectory() && named !== null) {
    const fix = "Name a folder; it is made if need be.";
    throw expected("ERR_USAGE", "--output", `a folder, as ${input} is one`, `"${output}"`, fix);
  }
  if (named !== null && format !== undefined && named !== format) {
    throw expected("ERR_USAGE", "--format", `${named}, as the output is`, format);
  }
  const kind = named ?? format ?? "png";
  const sources = found.isDirectory() ? await listImages(input, IMAGE_KINDS) : [input];
  const jobs = sources.map((path) => ({
    in: path,
    out: named !== null ? output : join(output, nameAs(basename(path), kind)),
    kind,
  }));
  checkTwins(jobs);
  await checkSources(jobs);
  return jobs;
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** A file's name with the ending of `kind`; a name without any image's ending stays as it is. */
function nameAs(name: string, kind: ImageKind): string {
  const own = kindOfName(name);
  if (own === null || own === kind) return name;
  return `${name.slice(0, -extname(name).length)}.${kind === "jpeg" ? "jpg" : kind}`;
}

function checkTwins(jobs: readonly Job[]): void {
  const taken = new Map<string, string>();
  for (const job of jobs) {
    const other = taken.get(job.out);
    if (other !== undefined) {
      const got = `${other} and ${job.in}, both for ${job.out}`;
      throw expected("ERR_USAGE", "images of the folder", "names that differ", got, "Rename one.");
    }
    taken.set(job.out, job.in);
  }
}

async function checkSources(jobs: readonly Job[]): Promise<void> {
  const real = (path: string): Promise<string | null> => realpath(path).catch(() => null);
  for (const job of jobs) {
    const target = await real(job.out);
    if (target !== null && target === (await real(job.in))) {
      const fix = "Choose another file or folder.";
      throw expected("ERR_USAGE", "--output", "a place other than the input's", job.out, fix);
    }
  }
}
