/**
 * Folders of images: listing them, and pairing high-resolution images (HR) with their
 * low-resolution versions (LR) as the benchmark sets name them.
 */
import { readdir } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { expected, Spr2qError } from "../errors.ts";
import { bicubicResize } from "../metrics/resize.ts";
import { ioError } from "./files.ts";
import { type ImageKind, kindOfName } from "./image_kind.ts";
import { readPng } from "./png.ts";
import { cropRaster, modcrop, type RasterImage, toRgb8 } from "./raster.ts";

/** An 8-bit RGB image. */
export type Rgb8Image = RasterImage & { readonly data: Uint8Array };

/** Files of one test image; without an LR file, LR is made from HR by bicubic reduction. */
export interface ImagePair {
  /** File name of HR without its extension. */
  readonly name: string;
  readonly hr: string;
  readonly lr: string | null;
}

/** A pair once read: 8-bit RGB both, HR cropped so that its sides are `scale` times LR's. */
export interface LoadedPair {
  readonly name: string;
  readonly hr: Rgb8Image;
  readonly lr: Rgb8Image;
}

/**
 * Paths of the PNG files in `dir` (not in folders below it), or of all `kinds` given, in order of
 * their names. Hidden files are left out. Throws ERR_IO where the folder cannot be read, ERR_DATA
 * where it holds none.
 */
export async function listImages(
  dir: string,
  kinds: readonly ImageKind[] = ["png"],
): Promise<string[]> {
  const wanted = (name: string): boolean => {
    const kind = kindOfName(name);
    return kind !== null && kinds.includes(kind) && !name.startsWith(".");
  };
  const names = (await namesIn(dir)).filter(wanted).sort();
  if (names.length === 0) {
    const spoken = kinds.length === 1 ? "PNG" : "PNG, JPEG, WebP or AVIF";
    const fix = `Images must lie in the folder itself, as ${spoken} files.`;
    throw expected("ERR_DATA", dir, `at least one ${spoken} image`, "none", fix);
  }
  return names.map((name) => join(dir, name));
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  } catch (cause) {
    throw ioError("read the folder", dir, cause);
  }
}

/**
 * Pairs the images of `hrDir` with NAMExS.png or NAME_LRBI_xS.png in `lrDir` or `lrDir`/XS. With
 * no `lrDir`, the pairs have no LR file. Throws ERR_DATA, naming the image, where one lacks its LR.
 */
export async function pairImages(
  hrDir: string,
  lrDir: string | null,
  scale: number,
): Promise<ImagePair[]> {
  const paths = await listImages(hrDir);
  const found = new Map<string, string>();
  if (lrDir !== null) {
    for (const name of await namesIn(lrDir)) found.set(name, join(lrDir, name));
    const below = join(lrDir, `X${scale}`);
    for (const name of await namesIn(below).catch(() => [])) {
      if (!found.has(name)) found.set(name, join(below, name));
    }
  }
  return paths.map((hr) => {
    const name = basename(hr, extname(hr));
    const wanted = [`${name}x${scale}.png`, `${name}_LRBI_x${scale}.png`];
    const lr = wanted.map((file) => found.get(file)).find((path) => path !== undefined) ?? null;
    if (lrDir !== null && lr === null) {
      const what = `${lrDir}: low-resolution image of ${name}`;
      const fix = "Leave the folder out to have it made by bicubic reduction.";
      throw expected(
        "ERR_DATA",
        what,
        `${wanted.join(" or ")}, there or in X${scale}`,
        "none",
        fix,
      );
    }
    return { name, hr, lr };
  });
}

/**
 * Reads a pair. HR is cropped at its top left: to `scale` times the LR file's size, or, where LR is
 * made here, to a multiple of `scale` before it is reduced. Throws ERR_DATA where the sizes of HR
 * and LR do not belong together, and whatever {@link readPng} throws.
 */
export async function loadPair(pair: ImagePair, scale: number): Promise<LoadedPair> {
  const hr = toRgb8(await readPng(pair.hr));
  if (pair.lr === null) {
    if (hr.width < scale || hr.height < scale) {
      const got = `${hr.width}x${hr.height}`;
      throw expected("ERR_DATA", pair.hr, `sides of ${scale} pixels or more`, got);
    }
    const cropped = modcrop(hr, scale) as Rgb8Image;
    return { name: pair.name, hr: cropped, lr: reduce(cropped, scale) };
  }
  const lr = toRgb8(await readPng(pair.lr));
  const width = lr.width * scale;
  const height = lr.height * scale;
  const spareX = hr.width - width;
  const spareY = hr.height - height;
  if (spareX < 0 || spareY < 0 || spareX >= scale || spareY >= scale) {
    const wanted = `a size ${scale} times that of ${pair.lr} (${lr.width}x${lr.height})`;
    throw expected("ERR_DATA", pair.hr, wanted, `${hr.width}x${hr.height}`);
  }
  return { name: pair.name, hr: cropRaster(hr, width, height) as Rgb8Image, lr };
}

/** Reduces an image whose sides are multiples of `scale`, as MATLAB would. Throws ERR_ARGUMENT. */
export function reduce(image: Rgb8Image, scale: number): Rgb8Image {
  if (!Number.isInteger(scale) || scale < 1 || image.width % scale || image.height % scale) {
    const got = `${image.width}x${image.height} and ${scale}`;
    throw new Spr2qError("ERR_ARGUMENT", `sides must be multiples of the scale; got ${got}`);
  }
  const small = bicubicResize(image.data, image.width, image.height, 3, 1 / scale);
  return { ...small, channels: 3, depth: 8 };
}
