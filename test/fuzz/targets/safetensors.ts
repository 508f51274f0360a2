/** Safetensors files: the bytes as they are, or as a header whose length and data are made to fit. */
import { readSafetensors, writeSafetensors } from "../../../lib/io/safetensors.ts";
import { elementCount, type HostTensor } from "../../../lib/io/host_tensor.ts";
import { must, orRefusal } from "./outcome.ts";

const MOST_DATA = 4096;

export const words = [
  '"dtype":"',
  '"shape":[',
  '"data_offsets":[',
  '"__metadata__":{',
  '"F32"',
  '"F16"',
  '"BF16"',
  '"F64"',
  '"I64"',
  '"I32"',
  '"I8"',
  '"U8"',
  '"BOOL"',
  '"F8_E4M3"',
  "9007199254740992",
  "-1",
  "1e3",
  "0.5",
  "{}",
  "[]",
  "null",
  '"__proto__"',
  "\\u0000",
  "},",
];

export function seeds(): Uint8Array[] {
  const tensors = new Map<string, HostTensor>([
    ["a.weight", { shape: [2, 3], dtype: "f32", data: new Float32Array(6).fill(1.5) }],
    ["b", { shape: [4], dtype: "f16", data: new Uint16Array(4).fill(0x3c00) }],
    ["codes", { shape: [3], dtype: "u8", data: new Uint8Array([1, 2, 3]) }],
    ["n", { shape: [], dtype: "i64", data: new BigInt64Array([5n]) }],
  ]);
  const file = writeSafetensors(tensors, { format: "1", bits: "4" });
  const headers = [
    '{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[16,20]}}',
    '{"__metadata__":{"k":"v"},"x":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"y":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}',
    '{"i":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
  ];
  const whole = Buffer.from([0, ...file]);
  return [
    whole,
    ...headers.map((header) => Buffer.concat([Buffer.from([1]), Buffer.from(header)])),
  ];
}

/** A file around the header `text`, with as many bytes of data as it speaks of. */
function around(text: Buffer): Buffer {
  let size = 0;
  for (const [, end] of text.toString("latin1").matchAll(/,\s*(\d{1,5})\s*\]\s*\}/g)) {
    size = Math.max(size, Number(end));
  }
  const out = Buffer.alloc(8 + text.length + Math.min(size, MOST_DATA), 0x41);
  out.writeBigUInt64LE(BigInt(text.length), 0);
  text.copy(out, 8);
  return out;
}

export function fuzz(input: Buffer): void {
  if (input.length === 0) return;
  const file = input[0] === 0 ? input.subarray(1) : around(input.subarray(1));
  const read = orRefusal(() => readSafetensors(file, "file.safetensors"));
  if (!read) return;
  for (const [name, tensor] of read.tensors) {
    must(
      elementCount(tensor.shape) === tensor.data.length,
      `${name} has the elements of its shape`,
    );
  }
  // What was read can be written, and reads the same.
  const again = readSafetensors(writeSafetensors(read.tensors, read.metadata), "again");
  must([...again.tensors.keys()].join("\n") === [...read.tensors.keys()].join("\n"), "names stay");
}
