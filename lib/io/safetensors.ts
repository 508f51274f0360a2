/**
 * Reader and writer of safetensors files: 8 bytes of header length (little-endian), a JSON header
 * {name: {dtype, shape, data_offsets}}, then the tensors' bytes. The header is distrusted: every
 * number is checked against the bytes at hand before anything is made from it.
 */
import { expected, Spr2qError } from "../errors.ts";
import {
  bfloat16ToFloat32,
  checkHostTensor,
  elementCount,
  type HostDtype,
  type HostTensor,
  type TensorMap,
  viewAs,
} from "./host_tensor.ts";

/** Bytes of header that the format allows. */
const MAX_HEADER_BYTES = 100_000_000;
const METADATA_KEY = "__metadata__";

/** Bytes per element of the types that are read. */
const ITEM_BYTES: ReadonlyMap<string, number> = new Map([
  ["F64", 8],
  ["F32", 4],
  ["F16", 2],
  ["BF16", 2],
  ["I64", 8],
  ["I32", 4],
  ["I8", 1],
  ["U8", 1],
  ["BOOL", 1],
]);

/** Names of the types that are written. */
const WRITTEN: Readonly<Record<HostDtype, string>> = {
  f32: "F32",
  f16: "F16",
  u8: "U8",
  i32: "I32",
  i64: "I64",
};

/** What a safetensors file holds. */
export interface SafetensorsFile {
  readonly tensors: TensorMap;
  readonly metadata: Record<string, string>;
}

interface HeaderEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * Reads a safetensors file. F32, F16, I32, I64 and U8 keep their type (F16 as raw bits); F64 and
 * BF16 become "f32", I8 "i32", BOOL "u8". Tensors are views of `bytes` where alignment allows.
 *
 * Throws ERR_CHECKPOINT, naming `name` (the file) and the tensor, unless the header is valid JSON
 * without duplicate keys, every shape matches its extent, and the extents tile the data exactly.
 */
export function readSafetensors(bytes: Uint8Array, name: string): SafetensorsFile {
  const { text, start } = headerText(bytes, name);
  const header = parseHeader(text, name);
  const data = bytes.subarray(start);
  const metadata = readMetadata(header[METADATA_KEY], name);
  const entries: HeaderEntry[] = [];
  for (const [key, value] of Object.entries(header)) {
    if (key !== METADATA_KEY) entries.push(readEntry(key, value, name));
  }
  checkTiling(entries, data.length, name);
  const tensors: TensorMap = new Map();
  for (const entry of entries) {
    tensors.set(entry.name, decode(entry, data.subarray(entry.begin, entry.end)));
  }
  return { tensors, metadata };
}

/** True where `bytes` begin like a safetensors file: a length, then an opening brace. */
export function looksLikeSafetensors(bytes: Uint8Array): boolean {
  return bytes.length > 8 && bytes[8] === 0x7b && bytes[6] === 0 && bytes[7] === 0;
}

function headerText(bytes: Uint8Array, name: string): { text: string; start: number } {
  if (bytes.length < 10) {
    throw expected("ERR_CHECKPOINT", name, "a safetensors file", `${bytes.length} bytes`);
  }
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const length = buffer.readBigUInt64LE(0);
  if (length > BigInt(Math.min(MAX_HEADER_BYTES, bytes.length - 8))) {
    const got = `${length} bytes claimed, ${bytes.length - 8} there`;
    throw expected("ERR_CHECKPOINT", `${name}: header`, "one that fits the file", got);
  }
  const start = 8 + Number(length);
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return { text: decoder.decode(bytes.subarray(8, start)), start };
  } catch (cause) {
    throw new Spr2qError("ERR_CHECKPOINT", `${name}: header is not UTF-8`, { cause });
  }
}

function parseHeader(text: string, name: string): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    throw new Spr2qError("ERR_CHECKPOINT", `${name}: header is not valid JSON`, { cause });
  }
  if (!isObject(header)) {
    throw expected("ERR_CHECKPOINT", `${name}: header`, "a JSON object", typeof header);
  }
  const twice = duplicateKey(text);
  if (twice !== null) {
    throw new Spr2qError("ERR_CHECKPOINT", `${name}: header lists "${twice}" twice`);
  }
  return header;
}

/** First key that occurs twice in one object of a text that is known to be valid JSON. */
function duplicateKey(text: string): string | null {
  const open: Set<string>[] = [];
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "{") open.push(new Set());
    else if (char === "}") open.pop();
    if (char !== '"') continue;
    const from = at++;
    while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    let next = at + 1;
    while (/\s/.test(text[next] ?? "")) next++;
    if (text[next] !== ":") continue; // a value, not a key
    const key = JSON.parse(text.slice(from, at + 1)) as string;
    const keys = open.at(-1) as Set<string>;
    if (keys.has(key)) return key;
    keys.add(key);
  }
  return null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function readMetadata(value: unknown, name: string): Record<string, string> {
  const metadata: Record<string, string> = {};
  if (value === undefined) return metadata;
  const what = `${name}: ${METADATA_KEY}`;
  if (!isObject(value)) throw expected("ERR_CHECKPOINT", what, "an object", typeof value);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") {
      throw expected("ERR_CHECKPOINT", `${what}.${key}`, "text", typeof text);
    }
    Object.defineProperty(metadata, key, { value: text, enumerable: true, writable: true });
  }
  return metadata;
}

function isIndexList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((v) => Number.isSafeInteger(v) && v >= 0);
}

function readEntry(key: string, value: unknown, file: string): HeaderEntry {
  const what = `${file}: tensor "${key}"`;
  if (!isObject(value)) throw expected("ERR_CHECKPOINT", what, "an object", typeof value);
  const { dtype, shape, data_offsets: offsets } = value;
  const size = typeof dtype === "string" ? ITEM_BYTES.get(dtype) : undefined;
  if (typeof dtype !== "string" || size === undefined) {
    const known = [...ITEM_BYTES.keys()].join(", ");
    throw expected("ERR_CHECKPOINT", `${what}: dtype`, `one of ${known}`, String(dtype));
  }
  if (!isIndexList(shape) || !isIndexList(offsets) || offsets.length !== 2) {
    throw expected("ERR_CHECKPOINT", what, "shape and two data_offsets of integers", "other");
  }
  const [begin, end] = offsets;
  if (elementCount(shape) * size !== end - begin) {
    const wanted = `${size} bytes for each element of [${shape.join(", ")}]`;
    throw expected("ERR_CHECKPOINT", `${what}: data_offsets`, wanted, `${begin} to ${end}`);
  }
  return { name: key, dtype, shape, begin, end };
}

/** Throws unless the extents follow on each other from 0 to the end of the data. */
function checkTiling(entries: readonly HeaderEntry[], size: number, file: string): void {
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { name, begin, end } of sorted) {
    if (begin !== at) {
      const what = `${file}: tensor "${name}"`;
      throw expected("ERR_CHECKPOINT", what, `data from byte ${at} on`, `from ${begin}`);
    }
    at = end;
  }
  if (at !== size) {
    const fix = "The file is damaged or was cut short.";
    throw expected("ERR_CHECKPOINT", `${file}: data`, `${at} bytes`, `${size}`, fix);
  }
}

function decode(entry: HeaderEntry, bytes: Uint8Array): HostTensor {
  const { shape } = entry;
  switch (entry.dtype) {
    case "F64":
      return { shape, dtype: "f32", data: Float32Array.from(viewAs(Float64Array, bytes)) };
    case "F32":
      return { shape, dtype: "f32", data: viewAs(Float32Array, bytes) };
    case "F16":
      return { shape, dtype: "f16", data: viewAs(Uint16Array, bytes) };
    case "BF16":
      return { shape, dtype: "f32", data: bfloat16ToFloat32(viewAs(Uint16Array, bytes)) };
    case "I64":
      return { shape, dtype: "i64", data: viewAs(BigInt64Array, bytes) };
    case "I32":
      return { shape, dtype: "i32", data: viewAs(Int32Array, bytes) };
    case "I8":
      return { shape, dtype: "i32", data: Int32Array.from(viewAs(Int8Array, bytes)) };
    default: // U8, BOOL
      return { shape, dtype: "u8", data: bytes };
  }
}

/**
 * A safetensors file as bytes. The header lists tensors in map order; their data lie widest
 * elements first, so that each one is aligned for whoever maps the file. The same input gives the
 * same bytes. Throws ERR_ARGUMENT for a tensor whose shape, type and data disagree.
 */
export function writeSafetensors(
  tensors: ReadonlyMap<string, HostTensor>,
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  for (const [name, tensor] of tensors) {
    if (name === METADATA_KEY) throw new Spr2qError("ERR_ARGUMENT", `"${name}" is reserved`);
    checkHostTensor(name, tensor);
  }
  const width = (name: string) => tensors.get(name)?.data.BYTES_PER_ELEMENT ?? 0;
  const placed = [...tensors.keys()].sort((a, b) => width(b) - width(a));
  const begins = new Map<string, number>();
  let size = 0;
  for (const name of placed) {
    begins.set(name, size);
    size += tensors.get(name)?.data.byteLength ?? 0;
  }
  const text = Buffer.from(headerJson(tensors, begins, metadata), "utf8");
  const start = 8 + Math.ceil(text.length / 8) * 8;
  const out = Buffer.alloc(start + size, 0x20);
  out.writeBigUInt64LE(BigInt(start - 8), 0);
  text.copy(out, 8);
  for (const [name, { data }] of tensors) {
    const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    out.set(raw, start + (begins.get(name) ?? 0));
  }
  return out;
}

function headerJson(
  tensors: ReadonlyMap<string, HostTensor>,
  begins: ReadonlyMap<string, number>,
  metadata: Readonly<Record<string, string>>,
): string {
  const parts: string[] = [];
  if (Object.keys(metadata).length > 0) {
    parts.push(`${JSON.stringify(METADATA_KEY)}:${JSON.stringify(metadata)}`);
  }
  for (const [name, { shape, dtype, data }] of tensors) {
    const begin = begins.get(name) ?? 0;
    const entry = { dtype: WRITTEN[dtype], shape, data_offsets: [begin, begin + data.byteLength] };
    parts.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
  }
  return `{${parts.join(",")}}`;
}
