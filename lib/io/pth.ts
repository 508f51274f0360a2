/**
 * Reader of PyTorch's `.pth` files: a stored zip with PREFIX/data.pkl (a pickled dict of tensors)
 * and PREFIX/data/KEY (raw little-endian storages). No code of the file is executed.
 *
 * A tensor is (storage, offset, shape, stride), all in elements; any non-negative strides are
 * honoured, so transposed, expanded and overlapping tensors come out as they looked in PyTorch.
 */
import { expected, Spr2qError } from "../errors.ts";
import {
  bfloat16ToFloat32,
  elementCount,
  type HostTensor,
  halfToFloat32,
  narrowIntegers,
  type TensorMap,
  viewAs,
} from "./host_tensor.ts";
import { isNode, type PickleDict, type PickleValue, readPickle, STORAGE_BYTES } from "./pickle.ts";
import { isZip, readZip } from "./zip.ts";

/** Elements that all tensors of one file may have together (1 GiB as float32). */
const MAX_ELEMENTS = 2 ** 28;
const MAX_RANK = 16;
/** Where training frameworks put the state dict, best first; BasicSR writes the first two. */
const WRAPPERS = ["params", "params_ema"] as const;

/**
 * Tensors of a `.pth` file by name, in file order. The state dict is looked for under "params",
 * then "params_ema", then at the top; a leading "module." is dropped from names.
 *
 * Floats of every width become "f32"; Bool and Byte "u8"; other integers "i32" where they fit, else
 * "i64". Throws ERR_PICKLE where the file asks for anything but plain tensors, ERR_CHECKPOINT
 * where it is damaged or lies about a size; both name `name` (the file) and the tensor.
 */
export function readPth(bytes: Uint8Array, name: string): TensorMap {
  if (!isZip(bytes)) throw notZip(bytes, name);
  const entries = readZip(bytes, name);
  const pickles = [...entries.keys()].filter((entry) => /^([^/]+\/)?data\.pkl$/.test(entry));
  if (pickles.length !== 1) {
    const got = `${pickles.length} of them`;
    throw expected("ERR_CHECKPOINT", `${name}: PyTorch archive`, "one data.pkl", got);
  }
  const prefix = pickles[0].slice(0, -"data.pkl".length);
  const order = entries.get(`${prefix}byteorder`);
  if (order && Buffer.from(order).toString("latin1").trim() !== "little") {
    throw new Spr2qError("ERR_CHECKPOINT", `${name}: it holds big-endian numbers; convert it`);
  }
  const reader = new PthReader(name, prefix, entries);
  const root = readPickle(entries.get(pickles[0]) as Uint8Array, name);
  return reader.readStateDict(unwrap(root, name));
}

function notZip(bytes: Uint8Array, name: string): Spr2qError {
  const text = Buffer.from(bytes.subarray(0, 512)).toString("latin1");
  if (bytes[0] === 0x80 || text.slice(257, 262) === "ustar") {
    const fix =
      "Load it in PyTorch and torch.save it again (since 1.6 that writes a zip), or convert it to .safetensors.";
    return expected("ERR_CHECKPOINT", name, "a .pth in zip form", "the legacy format", fix);
  }
  return expected("ERR_CHECKPOINT", name, "a .pth file (a zip archive)", "something else");
}

/** The dict that holds the tensors: under a known wrapper key, or the root itself. */
function unwrap(root: PickleValue, name: string): PickleDict {
  if (!(root instanceof Map)) {
    throw expected("ERR_CHECKPOINT", `${name}: the pickled object`, "a dict", "something else");
  }
  for (const key of WRAPPERS) {
    const inner = root.get(key);
    if (inner instanceof Map) return inner;
  }
  return root;
}

/** A storage once found: its type and its raw bytes. */
interface Storage {
  readonly type: string;
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** Where a tensor's elements lie in its storage, in elements. */
interface Layout {
  readonly offset: number;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
}

class PthReader {
  private readonly file: string;
  private readonly prefix: string;
  private readonly entries: ReadonlyMap<string, Uint8Array>;
  private elements = 0;

  constructor(file: string, prefix: string, entries: ReadonlyMap<string, Uint8Array>) {
    this.file = file;
    this.prefix = prefix;
    this.entries = entries;
  }

  readStateDict(dict: PickleDict): TensorMap {
    const tensors: TensorMap = new Map();
    for (const [rawKey, value] of dict) {
      const key = String(rawKey).replace(/^module\./, "");
      if (tensors.has(key)) throw this.bad(key, "appears twice");
      tensors.set(key, this.readTensor(key, value));
    }
    if (tensors.size === 0) {
      throw new Spr2qError("ERR_CHECKPOINT", `${this.file}: it holds no tensors`);
    }
    return tensors;
  }

  private bad(key: string, what: string): Spr2qError {
    return new Spr2qError("ERR_CHECKPOINT", `${this.file}: tensor "${key}" ${what}`);
  }

  private readTensor(key: string, value: PickleValue): HostTensor {
    if (!isNode(value) || value.kind !== "call") {
      const hint = `the state dict was looked for under ${WRAPPERS.join(", ")} and at the top`;
      throw this.bad(key, `is no tensor; ${hint}`);
    }
    if (value.callee === "torch._utils._rebuild_parameter") {
      const inner = value.args[0];
      if (isNode(inner) && inner.kind === "call" && inner.callee !== value.callee) {
        return this.readTensor(key, inner);
      }
      throw this.bad(key, "is a parameter without a tensor");
    }
    const [reference, offset, shape, stride] = value.args;
    const storage = this.readStorage(key, reference);
    const layout = this.checkLayout(key, storage, offset, shape, stride);
    return this.gather(storage, layout);
  }

  /** ("storage", type, key, device, element count) -> the bytes of PREFIX/data/key. */
  private readStorage(key: string, reference: PickleValue | undefined): Storage {
    const id = isNode(reference) && reference.kind === "persistent" ? reference.id : null;
    if (!Array.isArray(id) || id[0] !== "storage" || !isNode(id[1]) || id[1].kind !== "global") {
      throw this.bad(key, "has no storage");
    }
    const type = id[1].name;
    const size = STORAGE_BYTES.get(type);
    const entry = `${this.prefix}data/${String(id[2])}`;
    const bytes = this.entries.get(entry);
    const length = id[4];
    if (size === undefined || bytes === undefined) {
      throw this.bad(key, `needs the storage "${entry}", which is missing`);
    }
    if (typeof length !== "number" || length * size !== bytes.length) {
      throw this.bad(
        key,
        `claims ${String(length)} elements; its storage has ${bytes.length} bytes`,
      );
    }
    return { type, bytes, length };
  }

  private checkLayout(
    key: string,
    storage: Storage,
    offset: PickleValue | undefined,
    shape: PickleValue | undefined,
    stride: PickleValue | undefined,
  ): Layout {
    if (!isIndex(offset) || !isIndexList(shape) || !isIndexList(stride)) {
      throw this.bad(key, "has a malformed offset, shape or stride");
    }
    if (shape.length !== stride.length || shape.length > MAX_RANK) {
      throw this.bad(key, `has ${shape.length} sides and ${stride.length} strides`);
    }
    const count = elementCount(shape);
    this.elements += count;
    if (!(this.elements <= MAX_ELEMENTS)) {
      throw this.bad(key, `of shape [${shape.join(", ")}] exceeds ${MAX_ELEMENTS} elements a file`);
    }
    let last = offset;
    for (let i = 0; i < shape.length; i++) last += (shape[i] - 1) * stride[i];
    if (count > 0 && !(last < storage.length)) {
      throw this.bad(key, `reaches element ${last} of a storage of ${storage.length}`);
    }
    return { offset, shape, stride };
  }

  private gather(storage: Storage, layout: Layout): HostTensor {
    const { shape } = layout;
    const { type, bytes } = storage;
    const pick = <T extends Gatherable>(source: T): T => gatherElements(source, layout);
    const float = (data: Float32Array): HostTensor => ({ shape, dtype: "f32", data });
    const small = (data: Gatherable): HostTensor => ({
      shape,
      dtype: "i32",
      data: Int32Array.from(data as ArrayLike<number>),
    });
    switch (type) {
      case "torch.FloatStorage":
        return float(pick(viewAs(Float32Array, bytes)));
      case "torch.DoubleStorage":
        return float(Float32Array.from(pick(viewAs(Float64Array, bytes))));
      case "torch.HalfStorage":
        return float(halfToFloat32(pick(viewAs(Uint16Array, bytes))));
      case "torch.BFloat16Storage":
        return float(bfloat16ToFloat32(pick(viewAs(Uint16Array, bytes))));
      case "torch.LongStorage":
        return narrowIntegers(shape, pick(viewAs(BigInt64Array, bytes)));
      case "torch.IntStorage":
        return { shape, dtype: "i32", data: pick(viewAs(Int32Array, bytes)) };
      case "torch.ShortStorage":
        return small(pick(viewAs(Int16Array, bytes)));
      case "torch.CharStorage":
        return small(pick(viewAs(Int8Array, bytes)));
      default: // Byte and Bool
        return { shape, dtype: "u8", data: pick(viewAs(Uint8Array, bytes)) };
    }
  }
}

function isIndex(value: PickleValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isIndexList(value: PickleValue | undefined): value is number[] {
  return Array.isArray(value) && value.every(isIndex);
}

type Gatherable =
  | Float32Array
  | Float64Array
  | Uint16Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Int32Array
  | BigInt64Array;

/** Elements of a strided tensor in row-major order; a plain view where they already lie so. */
function gatherElements<T extends Gatherable>(source: T, layout: Layout): T {
  const { offset, shape, stride } = layout;
  const count = elementCount(shape);
  if (count === 0) return source.subarray(0, 0) as T;
  let step = 1;
  let plain = true;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && stride[i] !== step) plain = false;
    step *= shape[i];
  }
  if (plain) return source.subarray(offset, offset + count) as T;
  const Kind = source.constructor as new (length: number) => T;
  const out = new Kind(count);
  const index = new Array<number>(shape.length).fill(0);
  let from = offset;
  for (let to = 0; to < count; to++) {
    out[to] = source[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += stride[axis];
      if (++index[axis] < shape[axis]) break;
      from -= stride[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return out;
}
