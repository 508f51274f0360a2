/**
 * Weight files of any kind that this project reads. The kind is told by content, never by name.
 */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { expected, Spr2qError } from "../errors.ts";
import { ioError } from "./files.ts";
import { firstNonFinite, type TensorMap } from "./host_tensor.ts";
import { readPth } from "./pth.ts";
import { looksLikeSafetensors, readSafetensors } from "./safetensors.ts";
import { isZip } from "./zip.ts";

/** Bytes a weight file may have; the networks of this project need 5 MB. */
const MAX_WEIGHT_BYTES = 2 ** 31 - 1;

/** A weight file once read. */
export interface WeightFile {
  /** Tensors by name: shape, element type, values. */
  readonly tensors: TensorMap;
  /** The `__metadata__` of a safetensors file; empty for a .pth file. */
  readonly metadata: Record<string, string>;
  /** SHA-256 of the file's bytes, in hexadecimal. */
  readonly sha256: string;
}

/**
 * Reads a `.pth` or `.safetensors` file. Throws ERR_IO where it cannot be opened, ERR_PICKLE where
 * it asks for code, and ERR_CHECKPOINT where it is empty, cut short, damaged, of another kind, or
 * holds a NaN or infinity (named by tensor).
 */
export async function readWeights(path: string): Promise<WeightFile> {
  const bytes = await readBytes(path);
  const { tensors, metadata } = parseWeights(bytes, path);
  for (const [key, tensor] of tensors) {
    const at = firstNonFinite(tensor);
    if (at >= 0) {
      const got = `NaN or infinity at element ${at}`;
      throw expected("ERR_CHECKPOINT", `${path}: tensor "${key}"`, "finite numbers", got);
    }
  }
  return { tensors, metadata, sha256: createHash("sha256").update(bytes).digest("hex") };
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > MAX_WEIGHT_BYTES) {
      throw expected("ERR_CHECKPOINT", path, `at most ${MAX_WEIGHT_BYTES} bytes`, `${size}`);
    }
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof Spr2qError) throw cause;
    throw ioError("read the weights", path, cause);
  }
}

function parseWeights(
  bytes: Uint8Array,
  path: string,
): { tensors: TensorMap; metadata: Record<string, string> } {
  // Before the legacy pickle: one safetensors header in 32 has a length that starts with 0x80 too.
  if (looksLikeSafetensors(bytes)) return readSafetensors(bytes, path);
  if (isZip(bytes) || bytes[0] === 0x80) return { tensors: readPth(bytes, path), metadata: {} };
  const text = Buffer.from(bytes.subarray(0, 512)).toString("latin1");
  if (text.slice(257, 262) === "ustar") return { tensors: readPth(bytes, path), metadata: {} };
  throw expected("ERR_CHECKPOINT", path, "a .pth or .safetensors file", kindOf(text));
}

/** What a file that is no weight file looks like, in words. */
function kindOf(text: string): string {
  if (text === "") return "an empty file";
  if (text.startsWith("version https://git-lfs")) return "a Git LFS pointer (run git lfs pull)";
  if (/^\s*<(!doctype|html)/i.test(text)) return "a web page (the download failed)";
  if (text.startsWith("\x89PNG")) return "a PNG image";
  return "an unknown format";
}
