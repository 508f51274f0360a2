/**
 * The files that the server hands out: the page, and the bundled pictures as samples. All are read at
 * the start and found by their exact path, so no request can name a file.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../binding.ts";
import { ioError } from "../io/files.ts";
import { reduce, type Rgb8Image } from "../io/images.ts";
import { encodePng, readPng } from "../io/png.ts";
import { modcrop, toRgb8 } from "../io/raster.ts";

/** One file, ready to be sent. */
export interface PageFile {
  readonly type: string;
  readonly body: Uint8Array;
}

/** Bundled pictures by file name, in the order of the page. */
const SAMPLES = ["harbour", "still-life", "wall", "page"] as const;

/** Paths of the page's own files. */
const PAGE: readonly (readonly [path: string, file: string, type: string])[] = [
  ["/", "index.html", "text/html; charset=utf-8"],
  ["/page.css", "page.css", "text/css; charset=utf-8"],
  ["/page.js", "page.js", "text/javascript; charset=utf-8"],
  ["/compare.js", "compare.js", "text/javascript; charset=utf-8"],
  ["/psnr.js", "psnr.js", "text/javascript; charset=utf-8"],
  ["/icon.svg", "icon.svg", "image/svg+xml"],
];

/** What every file is sent with: nothing but the server itself may be asked for anything. */
export const PAGE_HEADERS = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
} as const;

/**
 * All files by path: the page, /samples/NAME.png, and /samples/NAME-xS.png, the same reduced by each
 * scale S. Throws ERR_IO where the package is incomplete.
 */
export async function loadPageFiles(
  scales: readonly number[],
): Promise<ReadonlyMap<string, PageFile>> {
  const files = new Map<string, PageFile>();
  for (const [path, file, type] of PAGE) {
    const place = join(packageRoot(), "assets", "page", file);
    const body = await readFile(place).catch((cause) => {
      throw ioError("read the page", place, cause);
    });
    files.set(path, { type, body });
  }
  for (const name of SAMPLES) {
    const image = toRgb8(await readPng(join(packageRoot(), "assets", "images", `${name}.png`)));
    files.set(`/samples/${name}.png`, { type: "image/png", body: encodePng(image) });
    for (const scale of scales) {
      const small = reduce(modcrop(image, scale) as Rgb8Image, scale);
      files.set(`/samples/${name}-x${scale}.png`, { type: "image/png", body: encodePng(small) });
    }
  }
  return files;
}
