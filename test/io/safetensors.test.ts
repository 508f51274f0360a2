import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { HostTensor, TensorMap } from "../../lib/io/host_tensor.ts";
import { readSafetensors, writeSafetensors } from "../../lib/io/safetensors.ts";
import { hasTestData, testData } from "../data.ts";
import { random, refusal } from "./helpers.ts";

/** A file with the given header text and data, whatever they say. */
function fileOf(header: string, data: Uint8Array = new Uint8Array(0)): Buffer {
  const text = Buffer.from(header);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, data]);
}

const header = (entries: Record<string, unknown>) => JSON.stringify(entries);
const f32 = (shape: number[], begin: number, end: number) => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});
const refuse = (text: string, data?: Uint8Array) =>
  refusal(() => readSafetensors(fileOf(text, data), "f.safetensors"));

function sample(seed: number): Map<string, HostTensor> {
  const next = random(seed);
  const tensors = new Map<string, HostTensor>();
  const kinds = {
    f32: Float32Array,
    f16: Uint16Array,
    u8: Uint8Array,
    i32: Int32Array,
    i64: BigInt64Array,
  } as const;
  for (let i = 0; i < 12; i++) {
    const dtype = (["f32", "f16", "u8", "i32", "i64"] as const)[Math.floor(next() * 5)];
    const shape = Array.from({ length: Math.floor(next() * 4) }, () => Math.floor(next() * 5));
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = Uint8Array.from({ length: count * 8 }, () => Math.floor(next() * 256));
    const data = new kinds[dtype](bytes.buffer, 0, count);
    tensors.set(`t${i}.${dtype}"\\ü`, { shape, dtype, data });
  }
  return tensors;
}

function sameTensors(a: TensorMap, b: ReadonlyMap<string, HostTensor>): void {
  expect([...a.keys()]).toEqual([...b.keys()]);
  for (const [name, { shape, dtype, data }] of b) {
    const got = a.get(name)!;
    expect([got.shape, got.dtype]).toEqual([shape, dtype]);
    const bytes = (d: ArrayBufferView) => Buffer.from(d.buffer, d.byteOffset, d.byteLength);
    expect(bytes(got.data).equals(bytes(data))).toBe(true); // bit for bit, NaNs too
  }
}

test("any tensors and notes survive writing and reading, bit for bit", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const tensors = sample(seed);
    const notes = { format: "1", text: 'a "quoted" ünïcode\n' };
    const read = readSafetensors(writeSafetensors(tensors, notes), "f");
    sameTensors(read.tensors, tensors);
    expect(read.metadata).toEqual(notes);
  }
});

test("the same tensors give the same bytes, and every tensor lies aligned", () => {
  const bytes = writeSafetensors(sample(4), { a: "b" });
  expect(writeSafetensors(sample(4), { a: "b" })).toEqual(bytes);
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  expect(length % 8).toBe(0);
  const text = Buffer.from(bytes.subarray(8, 8 + length)).toString();
  const sizes: Record<string, number> = { F32: 4, F16: 2, U8: 1, I32: 4, I64: 8 };
  for (const [name, entry] of Object.entries(JSON.parse(text) as Record<string, never>)) {
    if (name === "__metadata__") continue;
    const { dtype, data_offsets } = entry as { dtype: string; data_offsets: number[] };
    expect(data_offsets[0] % sizes[dtype]).toBe(0);
  }
});

test("a file at any address is read, aligned or not", () => {
  const tensors = sample(9);
  const bytes = writeSafetensors(tensors, {});
  for (let shift = 0; shift < 8; shift++) {
    const moved = new Uint8Array(bytes.length + shift);
    moved.set(bytes, shift);
    sameTensors(readSafetensors(moved.subarray(shift), "f").tensors, tensors);
  }
});

test("types that are only read are converted as documented", () => {
  const data = Buffer.alloc(23);
  data.writeDoubleLE(0.1, 0);
  data.writeUInt16LE(0x3fc0, 8); // bfloat16 1.5
  data.writeInt8(-5, 10);
  data[11] = 1;
  data.writeUInt16LE(0x3e00, 12); // half 1.5
  data.writeBigInt64LE(-7n, 14);
  data[22] = 200;
  const entry = (dtype: string, begin: number, end: number) => ({
    dtype,
    shape: [1],
    data_offsets: [begin, end],
  });
  const text = header({
    a: entry("F64", 0, 8),
    b: entry("BF16", 8, 10),
    c: entry("I8", 10, 11),
    d: entry("BOOL", 11, 12),
    e: entry("F16", 12, 14),
    f: entry("I64", 14, 22),
    g: entry("U8", 22, 23),
  });
  const { tensors } = readSafetensors(fileOf(text, data), "f");
  const got = [...tensors.values()].map(({ dtype, data }) => [dtype, data[0]]);
  expect(got).toEqual([
    ["f32", Math.fround(0.1)],
    ["f32", 1.5],
    ["i32", -5],
    ["u8", 1],
    ["f16", 0x3e00],
    ["i64", -7n],
    ["u8", 200],
  ]);
});

test("an empty file of no tensors is sound, and an empty tensor takes no bytes", () => {
  expect(readSafetensors(fileOf("{}"), "f").tensors.size).toBe(0);
  const { tensors } = readSafetensors(fileOf(header({ a: f32([0, 5], 0, 0) })), "f");
  expect(tensors.get("a")?.data.length).toBe(0);
  expect(readSafetensors(writeSafetensors(new Map(), {}), "f").tensors.size).toBe(0);
});

test("gaps, overlaps and lies in the offsets are refused, naming the tensor", () => {
  const data = new Uint8Array(16);
  const lies: [Record<string, unknown>, RegExp][] = [
    [{ a: f32([2], 0, 8), b: f32([1], 12, 16) }, /tensor "b": expected data from byte 8/],
    [{ a: f32([2], 0, 8), b: f32([3], 4, 16) }, /tensor "b"/],
    [{ a: f32([4], 0, 16), b: f32([4], 0, 16) }, /tensor "b"/],
    [{ a: f32([3], 4, 16) }, /tensor "a": expected data from byte 0/],
    [{ a: f32([3], 0, 12) }, /expected 12 bytes, got 16/],
    [{ a: f32([5], 0, 20) }, /expected 20 bytes, got 16/],
    [{ a: f32([3], 0, 16) }, /4 bytes for each element of \[3\]/],
    [{ a: f32([4], 16, 0) }, /data_offsets/],
    [{ a: f32([-4], 0, 16) }, /integers/],
    [{ a: f32([4.5], 0, 16) }, /integers/],
    [{ a: f32([2 ** 40, 2 ** 40], 0, 16) }, /data_offsets/],
    [{ a: { ...f32([4], 0, 16), data_offsets: [0, 16, 16] } }, /integers/],
    [{ a: { ...f32([4], 0, 16), dtype: "F8_E4M3" } }, /dtype: expected one of F64.*got F8_E4M3/],
    [{ a: { ...f32([4], 0, 16), dtype: 3 } }, /dtype/],
    [{ a: [1] }, /expected an object/],
    [{ __metadata__: { a: 1 } }, /__metadata__\.a: expected text/],
    [{ __metadata__: "x" }, /__metadata__: expected an object/],
  ];
  for (const [lie, message] of lies) {
    const text = refuse(header(lie), data);
    expect(text).toMatch(/^ERR_CHECKPOINT: f\.safetensors/);
    expect(text).toMatch(message);
  }
});

test("a header that is no JSON object, not UTF-8, or too long is refused", () => {
  expect(refuse("{a")).toMatch(/ERR_CHECKPOINT.*not valid JSON/);
  expect(refuse("[]")).toMatch(/ERR_CHECKPOINT.*JSON object/);
  expect(refuse("{} x")).toMatch(/ERR_CHECKPOINT.*JSON/);
  expect(refuse("\ufeff{}")).toMatch(/ERR_CHECKPOINT/);
  const bad = fileOf('{"a":"??"}');
  bad[14] = 0xff;
  expect(refusal(() => readSafetensors(bad, "f"))).toMatch(/ERR_CHECKPOINT.*UTF-8/);
  for (const claim of [3n, 1000n, 2n ** 40n, 2n ** 64n - 1n]) {
    const file = fileOf("{}");
    file.writeBigUInt64LE(claim);
    expect(refusal(() => readSafetensors(file, "f"))).toMatch(/ERR_CHECKPOINT.*header/);
  }
});

test("a key that occurs twice is refused, however it is spelled", () => {
  const a = JSON.stringify(f32([1], 0, 4));
  const data = new Uint8Array(4);
  expect(refuse(`{"a":${a},"a":${a}}`, data)).toMatch(/"a" twice/);
  expect(refuse(`{"a":${a}, "\\u0061" :${a}}`, data)).toMatch(/"a" twice/);
  const inner = '{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}';
  expect(refuse(inner, data)).toMatch(/"shape" twice/);
  const innocent = `{"__metadata__":{"x":"{\\"a\\":1,\\"a\\":2}","y":"x"},"x":${a}}`;
  expect(readSafetensors(fileOf(innocent, data), "f").tensors.size).toBe(1);
});

test("__proto__ and constructor are names like any other", () => {
  const text = `{"__metadata__":{"__proto__":"p"},"__proto__":${JSON.stringify(f32([1], 0, 4))}}`;
  const { tensors, metadata } = readSafetensors(fileOf(text, new Uint8Array(4)), "f");
  expect([...tensors.keys()]).toEqual(["__proto__"]);
  expect(Object.entries(metadata)).toEqual([["__proto__", "p"]]);
  expect(Object.getPrototypeOf(metadata)).toBe(Object.prototype);
});

test("a file cut at any byte is refused", () => {
  const bytes = writeSafetensors(sample(2), { note: "x" });
  for (let size = 0; size < bytes.length; size++) {
    expect(refusal(() => readSafetensors(bytes.subarray(0, size), "f"))).toMatch(/ERR_CHECKPOINT/);
  }
});

test("a flipped byte in the header is refused or changes a name or note, never crashes", () => {
  const bytes = writeSafetensors(sample(2), { note: "x" });
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  let refused = 0;
  for (let at = 0; at < 8 + length; at++) {
    for (const flip of [1, 0x80, 0xff]) {
      const bad = Uint8Array.from(bytes);
      bad[at] ^= flip;
      try {
        readSafetensors(bad, "f");
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_CHECKPOINT" });
        refused++;
      }
    }
  }
  expect(refused).toBeGreaterThan(length);
});

test("a tensor whose shape, type and data disagree is not written", () => {
  const write = (tensor: unknown, name = "a") =>
    refusal(() => writeSafetensors(new Map([[name, tensor as HostTensor]]), {}));
  const data = Float32Array.of(1, 2);
  expect(write({ shape: [3], dtype: "f32", data })).toMatch(/ERR_ARGUMENT.*"a"/);
  expect(write({ shape: [2], dtype: "f16", data })).toMatch(/ERR_ARGUMENT.*"a"/);
  expect(write({ shape: [2], dtype: "f64", data })).toMatch(/ERR_ARGUMENT/);
  expect(write({ shape: [2], dtype: "f32", data }, "__metadata__")).toMatch(/reserved/);
});

test.skipIf(!hasTestData)("the golden files load and keep their values when rewritten", () => {
  for (const path of ["ops/qdq_4bit", "mambairv2-light-x4/forward-argmax"]) {
    const bytes = readFileSync(testData(`golden/${path}.safetensors`));
    const first = readSafetensors(bytes, path);
    const again = readSafetensors(writeSafetensors(first.tensors, first.metadata), path);
    expect(first.tensors.size).toBeGreaterThan(5);
    sameTensors(again.tensors, first.tensors);
  }
  const argmax = readFileSync(testData("golden/mambairv2-light-x4/forward-argmax.safetensors"));
  const routes = readSafetensors(argmax, "argmax").tensors.get("routes");
  expect([routes?.dtype, routes?.shape[0]]).toEqual(["i32", 20]);
});
