/** What kind of image file bytes begin, told by the bytes themselves: names and headers may lie. */

/** Kinds of image files that can be read and written; all but PNG through sharp. */
export const IMAGE_KINDS = ["png", "jpeg", "webp", "avif"] as const;

/** One of {@link IMAGE_KINDS}. */
export type ImageKind = (typeof IMAGE_KINDS)[number];

/** Bytes from the start of a file that {@link imageKind} looks at. */
export const KIND_BYTES = 32;

/** Kind by the ending of a file's name; null for other endings. */
export function kindOfName(name: string): ImageKind | null {
  const ending = /\.(png|jpe?g|webp|avif)$/i.exec(name)?.[1].toLowerCase();
  return ending === undefined ? null : ending === "jpg" ? "jpeg" : (ending as ImageKind);
}

/** Kind of the file that begins with `bytes` (at least {@link KIND_BYTES}, or all of it), or null. */
export function imageKind(bytes: Uint8Array): ImageKind | null {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, KIND_BYTES));
  const text = (from: number, to: number): string => b.toString("latin1", from, to);
  if (text(0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (text(0, 3) === "\xff\xd8\xff") return "jpeg";
  if (text(0, 4) === "RIFF" && text(8, 12) === "WEBP") return "webp";
  // An ISO media file names its brand and those it is compatible with, four letters each.
  if (text(4, 8) === "ftyp" && /avi[fs]/.test(text(8, KIND_BYTES))) return "avif";
  return null;
}
