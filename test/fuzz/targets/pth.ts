/**
 * .pth files: the bytes as a whole archive (with its checksums put right, or as they are), or as the
 * pickle inside a sound archive.
 */
import { crc32 } from "node:zlib";
import { elementCount, firstNonFinite } from "../../../lib/io/host_tensor.ts";
import { readPth } from "../../../lib/io/pth.ts";
import { contiguous, makePth, makeZip, pickle, pickleTensor } from "../../io/make_pth.ts";
import { must, orRefusal } from "./outcome.ts";

/** First byte of an input: what the others are. */
const [RAW, MENDED, PICKLE] = [0, 1, 2];
const STORAGE = new Uint8Array(64).map((_, i) => i * 7);

export const words = [
  "PK\x03\x04",
  "PK\x01\x02",
  "PK\x05\x06",
  "PK\x06\x06",
  "PK\x06\x07",
  "\xff\xff\xff\xff",
  "\x01\x00",
  "archive/data.pkl",
  "data/0",
  "byteorder",
  "little",
  "params",
  "params_ema",
  "module.",
  "storage",
  "ctorch._utils\n_rebuild_tensor_v2\n",
  "ctorch._utils\n_rebuild_parameter\n",
  "ccollections\nOrderedDict\n",
  "ctorch\nFloatStorage\n",
  "ctorch\nBFloat16Storage\n",
  "ctorch\nHalfStorage\n",
  "ctorch\nLongStorage\n",
  "ctorch\nBoolStorage\n",
  "ctorch\nDoubleStorage\n",
  "cos\nsystem\n",
  ")R",
  "(",
  "t",
  "u",
  "Q",
  "\x80\x02",
  "}",
  "]",
  "\x85",
  "\x87",
  "\x8a\x08",
  "h\x00",
  "q\x00",
];

export function seeds(): Uint8Array[] {
  const tensors = (types: readonly string[]) =>
    types.map((type, i) => {
      const size =
        {
          DoubleStorage: 8,
          LongStorage: 8,
          HalfStorage: 2,
          ShortStorage: 2,
          BFloat16Storage: 2,
          CharStorage: 1,
          ByteStorage: 1,
          BoolStorage: 1,
        }[type] ?? 4;
      const length = STORAGE.length / size;
      return {
        name: `layer.${i}.weight`,
        type,
        storage: "0",
        length,
        shape: [2, length / 4],
        stride: contiguous([2, length / 4]),
      };
    });
  const all = [
    "FloatStorage",
    "DoubleStorage",
    "HalfStorage",
    "BFloat16Storage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
  ];
  const transposed = {
    ...tensors(["FloatStorage"])[0],
    shape: [4, 2],
    stride: [1, 4],
    offset: 3,
    parameter: true,
  };
  const files = [
    makePth(tensors(["FloatStorage"]), { 0: STORAGE }),
    makePth(
      tensors(all.slice(0, 3)),
      { 0: STORAGE },
      { wrappers: ["params"], byteorder: "little", zip64: true },
    ),
    makePth([transposed], { 0: STORAGE }, { wrappers: ["params_ema"], prefix: "net" }),
  ];
  const pickles = [
    pickle.file(
      pickle.dict(
        tensors(all).map((tensor) => [tensor.name, pickleTensor(tensor)] as const),
        true,
      ),
    ),
    pickle.file(pickle.dict([["params", pickle.dict([["module.w", pickleTensor(transposed)]])]])),
  ];
  return [
    ...files.flatMap((file) => [Buffer.from([RAW, ...file]), Buffer.from([MENDED, ...file])]),
    ...pickles.map((bytes) => Buffer.from([PICKLE, ...bytes])),
  ];
}

/** Puts the checksums of a directory's entries right, where it can be followed. */
function mend(bytes: Buffer): void {
  for (
    let at = bytes.indexOf("PK\x01\x02");
    at >= 0 && at + 46 <= bytes.length;
    at = bytes.indexOf("PK\x01\x02", at + 1)
  ) {
    const local = bytes.readUInt32LE(at + 42);
    if (local + 30 > bytes.length) continue;
    const begin = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const end = begin + bytes.readUInt32LE(at + 24);
    if (end <= bytes.length) bytes.writeUInt32LE(crc32(bytes.subarray(begin, end)), at + 16);
  }
}

export function fuzz(input: Buffer): void {
  if (input.length === 0) return;
  let file = input.subarray(1);
  if (input[0] === MENDED) mend(file);
  if (input[0] === PICKLE)
    file = makeZip([
      ["archive/data.pkl", file],
      ["archive/data/0", STORAGE],
    ]);
  const tensors = orRefusal(() => readPth(file, "file.pth"));
  for (const [name, tensor] of tensors ?? []) {
    must(
      elementCount(tensor.shape) === tensor.data.length,
      `${name} has the elements of its shape`,
    );
    must(firstNonFinite(tensor) < tensor.data.length, `${name} is looked through`);
  }
}
