/**
 * Makes small `.pth` files for the tests: a writer of stored zip archives, and one of pickles in
 * the opcodes that torch.save emits.
 */
import { crc32 } from "node:zlib";

export interface ZipOptions {
  /** Adds the ZIP64 end records, as torch.save does. */
  readonly zip64?: boolean;
  /** Compression method to claim (0 is stored). */
  readonly method?: number;
}

function u16(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 2);
  values.forEach((value, i) => {
    out.writeUInt16LE(value, i * 2);
  });
  return out;
}

function u32(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 4);
  values.forEach((value, i) => {
    out.writeUInt32LE(value >>> 0, i * 4);
  });
  return out;
}

function u64(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 8);
  values.forEach((value, i) => {
    out.writeBigUInt64LE(BigInt(value), i * 8);
  });
  return out;
}

/** A zip archive of stored entries; sizes only in the directory, as torch.save leaves them. */
export function makeZip(
  entries: readonly (readonly [string, Uint8Array])[],
  options: ZipOptions = {},
): Buffer {
  const method = options.method ?? 0;
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  const put = (...buffers: Buffer[]) => {
    for (const buffer of buffers) {
      parts.push(buffer);
      at += buffer.length;
    }
  };
  for (const [name, data] of entries) {
    const raw = Buffer.from(name);
    const start = at;
    const crc = crc32(data);
    put(u32(0x04034b50), u16(0, 8, method, 0, 0), u32(0, 0, 0), u16(raw.length, 4), raw);
    put(Buffer.from("FB\0\0"), Buffer.from(data));
    put(u32(0x08074b50, crc, data.length, data.length)); // data descriptor
    central.push(
      Buffer.concat([
        u32(0x02014b50),
        u16(0, 0, 8, method, 0, 0),
        u32(crc, data.length, data.length),
        u16(raw.length, 0, 0, 0, 0),
        u32(0, start),
        raw,
      ]),
    );
  }
  const directory = Buffer.concat(central);
  const start = at;
  put(directory);
  const count = entries.length;
  if (options.zip64) {
    const end64 = at;
    put(u32(0x06064b50), u64(44), u16(45, 45), u32(0, 0));
    put(u64(count, count, directory.length, start));
    put(u32(0x07064b50, 0), u64(end64), u32(1));
  }
  put(u32(0x06054b50), u16(0, 0, count, count), u32(directory.length, start), u16(0));
  return Buffer.concat(parts);
}

/** Pieces of a pickle, each a sequence of opcodes that leaves one value on the stack. */
export const pickle = {
  text: (value: string): Buffer => {
    const raw = Buffer.from(value);
    return Buffer.concat([Buffer.from("X"), u32(raw.length), raw]);
  },
  integer: (value: number): Buffer => {
    if (value >= 0 && value < 256) return Buffer.from([0x4b, value]);
    if (value >= 0 && value < 65536) return Buffer.concat([Buffer.from("M"), u16(value)]);
    if (Math.abs(value) < 2 ** 31) return Buffer.concat([Buffer.from("J"), u32(value)]);
    const out = Buffer.alloc(10);
    out.set([0x8a, 8]);
    out.writeBigInt64LE(BigInt(value), 2);
    return out;
  },
  no: Buffer.from([0x89]),
  global: (module: string, name: string): Buffer => Buffer.from(`c${module}\n${name}\n`),
  tuple: (...items: Buffer[]): Buffer =>
    Buffer.concat([Buffer.from("("), ...items, Buffer.from("t")]),
  call: (callee: Buffer, ...args: Buffer[]): Buffer =>
    Buffer.concat([callee, pickle.tuple(...args), Buffer.from("R")]),
  orderedDict: (): Buffer =>
    Buffer.concat([pickle.global("collections", "OrderedDict"), Buffer.from(")R")]),
  dict: (entries: readonly (readonly [string, Buffer])[], ordered = false): Buffer =>
    Buffer.concat([
      ordered ? pickle.orderedDict() : Buffer.from("}"),
      Buffer.from("("),
      ...entries.flatMap(([key, value]) => [pickle.text(key), value]),
      Buffer.from("u"),
    ]),
  file: (value: Buffer): Buffer => Buffer.concat([Buffer.from([0x80, 2]), value, Buffer.from(".")]),
};

export interface PthTensor {
  readonly name: string;
  /** For example "FloatStorage". */
  readonly type: string;
  /** Key of the storage: data/KEY. */
  readonly storage: string;
  /** Elements that the pickle says the storage has. */
  readonly length: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly stride?: readonly number[];
  readonly parameter?: boolean;
}

/** Strides of a contiguous tensor. */
export function contiguous(shape: readonly number[]): number[] {
  const stride: number[] = [];
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    stride.unshift(step);
    step *= shape[i];
  }
  return stride;
}

/** The pickle of one tensor, as torch.save writes it. */
export function pickleTensor(tensor: PthTensor): Buffer {
  const id = pickle.tuple(
    pickle.text("storage"),
    pickle.global("torch", tensor.type),
    pickle.text(tensor.storage),
    pickle.text("cpu"),
    pickle.integer(tensor.length),
  );
  const built = pickle.call(
    pickle.global("torch._utils", "_rebuild_tensor_v2"),
    Buffer.concat([id, Buffer.from("Q")]),
    pickle.integer(tensor.offset ?? 0),
    pickle.tuple(...tensor.shape.map(pickle.integer)),
    pickle.tuple(...(tensor.stride ?? contiguous(tensor.shape)).map(pickle.integer)),
    pickle.no,
    pickle.orderedDict(),
  );
  if (!tensor.parameter) return built;
  const rebuild = pickle.global("torch._utils", "_rebuild_parameter");
  return pickle.call(rebuild, built, pickle.no, pickle.orderedDict());
}

export interface PthOptions extends ZipOptions {
  /** Keys that the state dict is wrapped in, outermost first. */
  readonly wrappers?: readonly string[];
  readonly byteorder?: string;
  readonly prefix?: string;
}

/** Raw bytes of a typed array. */
export function rawBytes(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** A whole `.pth` file. */
export function makePth(
  tensors: readonly PthTensor[],
  storages: Readonly<Record<string, ArrayBufferView>>,
  options: PthOptions = {},
): Buffer {
  const entries = tensors.map((tensor) => [tensor.name, pickleTensor(tensor)] as const);
  let value = pickle.dict(entries, true);
  for (const key of [...(options.wrappers ?? [])].reverse()) value = pickle.dict([[key, value]]);
  return makePthOf(value, storages, options);
}

/** A `.pth` file around any pickled value. */
export function makePthOf(
  value: Buffer,
  storages: Readonly<Record<string, ArrayBufferView>> = {},
  options: PthOptions = {},
): Buffer {
  const prefix = options.prefix ?? "archive";
  const files: (readonly [string, Uint8Array])[] = [[`${prefix}/data.pkl`, pickle.file(value)]];
  if (options.byteorder) files.push([`${prefix}/byteorder`, Buffer.from(options.byteorder)]);
  for (const [key, data] of Object.entries(storages)) {
    files.push([`${prefix}/data/${key}`, rawBytes(data)]);
  }
  files.push([`${prefix}/version`, Buffer.from("3\n")]);
  return makeZip(files, options);
}
