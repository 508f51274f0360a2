/**
 * A writer of ONNX models, small enough to read: the protobuf wire format (varints, and fields of
 * known length) and the few messages that a graph needs. Field numbers are those of onnx.proto3.
 */

/** Element types of the tensors written here, by their ONNX code. */
const FLOAT = 1;
const UINT8 = 2;
const INT8 = 3;
const INT32 = 6;
const INT64 = 7;
/** Types of attributes. */
const ATTRIBUTE_FLOAT = 1;
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_STRING = 3;
const ATTRIBUTE_INTS = 7;
/** Version of the file format, and of the operator set: 20 is the first with Gelu. */
const IR_VERSION = 9;
const OPSET = 20;

/** Data of a constant; plain numbers are written as int64, as shapes and axes want. */
export type OnnxData = Float32Array | Uint8Array | Int8Array | Int32Array | readonly number[];

/** An attribute: an integer, integers, a string, or a float in its wrapper. */
export type OnnxAttribute = number | readonly number[] | string | { readonly float: number };

/** Bytes of an unsigned or two's complement number, seven bits a byte, low ones first. */
function varint(value: number | bigint): number[] {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return bytes;
}

const number = (field: number, value: number): Uint8Array =>
  Uint8Array.from([...varint(field << 3), ...varint(value)]);

function bytesField(field: number, value: Uint8Array): Uint8Array {
  const head = [...varint((field << 3) | 2), ...varint(value.length)];
  const out = new Uint8Array(head.length + value.length);
  out.set(head);
  out.set(value, head.length);
  return out;
}

const text = (field: number, value: string): Uint8Array => bytesField(field, Buffer.from(value));

function float(field: number, value: number): Uint8Array {
  const four = new Uint8Array(Float32Array.of(value).buffer);
  return Uint8Array.from([...varint((field << 3) | 5), ...four]);
}

const message = (field: number, parts: readonly Uint8Array[]): Uint8Array =>
  bytesField(field, Buffer.concat(parts));

function typeOf(data: OnnxData): number {
  if (data instanceof Float32Array) return FLOAT;
  if (data instanceof Uint8Array) return UINT8;
  if (data instanceof Int8Array) return INT8;
  return data instanceof Int32Array ? INT32 : INT64;
}

function tensor(name: string, data: OnnxData, shape: readonly number[]): Uint8Array[] {
  const array = ArrayBuffer.isView(data) ? data : BigInt64Array.from(data, BigInt);
  const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return [
    ...shape.map((side) => number(1, side)),
    number(2, typeOf(data)),
    text(8, name),
    bytesField(9, raw),
  ];
}

function valueInfo(name: string, shape: readonly number[] | null): Uint8Array[] {
  const sides = shape?.map((side) => message(1, [number(1, side)]));
  const type = [number(1, FLOAT), ...(sides ? [message(2, sides)] : [])];
  return [text(1, name), message(2, [message(1, type)])];
}

function attribute(name: string, value: OnnxAttribute): Uint8Array[] {
  const named = text(1, name);
  if (typeof value === "number") return [named, number(3, value), number(20, ATTRIBUTE_INT)];
  if (typeof value === "string") return [named, text(4, value), number(20, ATTRIBUTE_STRING)];
  if ("float" in value) return [named, float(2, value.float), number(20, ATTRIBUTE_FLOAT)];
  return [named, ...value.map((entry) => number(8, entry)), number(20, ATTRIBUTE_INTS)];
}

/** A graph under construction; every method returns the names of what it made. */
export class OnnxGraph {
  readonly #nodes: Uint8Array[] = [];
  readonly #constants: Uint8Array[] = [];
  readonly #inputs: Uint8Array[] = [];
  readonly #outputs: Uint8Array[] = [];
  #count = 0;

  /** A float input of that shape. */
  input(name: string, shape: readonly number[]): string {
    this.#inputs.push(message(11, valueInfo(name, shape)));
    return name;
  }

  /** Makes `value` an output called `name`; ONNX Runtime infers shapes that are not given. */
  output(name: string, value: string, shape: readonly number[] | null = null): void {
    this.#add("Identity", [value], {}, [name]);
    this.#outputs.push(message(12, valueInfo(name, shape)));
  }

  /** A constant tensor; without a shape a vector of its elements. */
  constant(data: OnnxData, shape: readonly number[] = [data.length]): string {
    const name = `constant_${this.#count++}`;
    this.#constants.push(message(5, tensor(name, data, shape)));
    return name;
  }

  /** A float scalar. */
  scalar(value: number): string {
    return this.constant(Float32Array.of(value), []);
  }

  /** One node with one output. An empty input name stands for an absent operand. */
  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): string {
    return this.nodes(op, inputs, attributes, 1)[0];
  }

  /** One node with `count` outputs. */
  nodes(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>>,
    count: number,
  ): string[] {
    const outputs = Array.from({ length: count }, () => `${op}_${this.#count++}`);
    this.#add(op, inputs, attributes, outputs);
    return outputs;
  }

  #add(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, OnnxAttribute>>,
    outputs: readonly string[],
  ): void {
    const parts = [
      ...inputs.map((name) => text(1, name)),
      ...outputs.map((name) => text(2, name)),
      text(3, outputs[0]),
      text(4, op),
      ...Object.entries(attributes).map(([name, value]) => message(5, attribute(name, value))),
    ];
    this.#nodes.push(message(1, parts));
  }

  /** The finished model file. */
  bytes(): Uint8Array {
    const graph = [
      ...this.#nodes,
      text(2, "spr2q bench"),
      ...this.#constants,
      ...this.#inputs,
      ...this.#outputs,
    ];
    const opset = message(8, [text(1, ""), number(2, OPSET)]);
    return Buffer.concat([number(1, IR_VERSION), text(2, "spr2q"), message(7, graph), opset]);
  }
}
