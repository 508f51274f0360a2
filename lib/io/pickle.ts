/**
 * Restricted reader of Python pickles (protocols 0-2, the opcodes that torch.save emits).
 *
 * A pickle is a program for a small stack machine, and a general reader runs whatever function it
 * names. This one runs nothing: a global must be on a fixed list, and calling one only yields a
 * node {kind: "call"} that lib/io/pth.ts knows how to read. Every opcode pushes at most one value,
 * so memory stays within a constant factor of the file; there is no recursion.
 */
import { Spr2qError } from "../errors.ts";
import { OP } from "./pickle_opcodes.ts";

/** Bytes a pickle may have: names and shapes of a network with a million tensors fit. */
const MAX_PICKLE_BYTES = 64 * 2 ** 20;
/** Containers open at one time; a state dict needs five. */
const MAX_DEPTH = 64;
/** Bytes of "module\nname\n"; the longest allowed has 32. */
const MAX_GLOBAL_BYTES = 256;

/** Globals that are called (as nodes), besides the storage types, which are only named. */
const CALLABLE: ReadonlySet<string> = new Set([
  "collections.OrderedDict",
  "torch._utils._rebuild_tensor_v2",
  "torch._utils._rebuild_parameter",
]);

/** Bytes per element of the storage types that a pickle may name. */
export const STORAGE_BYTES: ReadonlyMap<string, number> = new Map([
  ["torch.FloatStorage", 4],
  ["torch.DoubleStorage", 8],
  ["torch.HalfStorage", 2],
  ["torch.BFloat16Storage", 2],
  ["torch.LongStorage", 8],
  ["torch.IntStorage", 4],
  ["torch.ShortStorage", 2],
  ["torch.CharStorage", 1],
  ["torch.ByteStorage", 1],
  ["torch.BoolStorage", 1],
]);

/** A value of the restricted language. Lists and tuples are both arrays; a dict is a Map. */
export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleValue[]
  | PickleDict
  | PickleGlobal
  | PickleCall
  | PicklePersistent;
/** A dict or OrderedDict, in insertion order. */
export type PickleDict = Map<string | number, PickleValue>;
/** A name on the allow-list, for example torch.FloatStorage. */
export interface PickleGlobal {
  readonly kind: "global";
  readonly name: string;
}
/** A call that the pickle asks for and that nobody makes. */
export interface PickleCall {
  readonly kind: "call";
  readonly callee: string;
  readonly args: readonly PickleValue[];
}
/** A reference to something outside of the pickle: in a .pth file, a storage. */
export interface PicklePersistent {
  readonly kind: "persistent";
  readonly id: PickleValue;
}

/** True for values that carry a `kind`: globals, calls and persistent references. */
export function isNode(
  value: PickleValue | undefined,
): value is PickleGlobal | PickleCall | PicklePersistent {
  return (
    typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Map)
  );
}

/**
 * Reads one pickle. Throws ERR_PICKLE (naming `file` and the offender) for a global, opcode or
 * protocol outside the restricted language, ERR_CHECKPOINT for a pickle that is cut or malformed.
 */
export function readPickle(bytes: Uint8Array, file: string): PickleValue {
  if (bytes.length > MAX_PICKLE_BYTES) {
    const got = `${bytes.length} bytes, the limit is ${MAX_PICKLE_BYTES}`;
    throw new Spr2qError("ERR_PICKLE", `${file}: pickle too large: ${got}`);
  }
  return new PickleReader(bytes, file).run();
}

class PickleReader {
  private readonly bytes: Buffer;
  private readonly file: string;
  private at = 0;
  private readonly stack: PickleValue[] = [];
  private readonly marks: number[] = [];
  private readonly memo = new Map<number, PickleValue>();

  constructor(bytes: Uint8Array, file: string) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.file = file;
  }

  run(): PickleValue {
    for (;;) {
      const opcode = this.bytes[this.take(1)];
      if (opcode === OP.STOP) break;
      if (!this.pushScalar(opcode) && !this.build(opcode)) this.machine(opcode);
    }
    if (this.stack.length !== 1) throw this.malformed("it does not end with one value");
    return this.pop();
  }

  private malformed(what: string): Spr2qError {
    return new Spr2qError("ERR_CHECKPOINT", `${this.file}: damaged pickle: ${what}`);
  }

  private refused(what: string): Spr2qError {
    const fix = "Only plain tensors are read; save the state_dict alone, or as .safetensors";
    return new Spr2qError("ERR_PICKLE", `${this.file}: refused: ${what}. ${fix}`);
  }

  /** Advances over `count` bytes and gives the position of the first. */
  private take(count: number): number {
    const from = this.at;
    if (from + count > this.bytes.length) throw this.malformed("it ends too early");
    this.at = from + count;
    return from;
  }

  private pop(): PickleValue {
    const floor = this.marks.at(-1) ?? 0;
    if (this.stack.length <= floor) throw this.malformed("it takes from an empty stack");
    return this.stack.pop() as PickleValue;
  }

  private top(): PickleValue {
    const floor = this.marks.at(-1) ?? 0;
    if (this.stack.length <= floor) throw this.malformed("it reads from an empty stack");
    return this.stack[this.stack.length - 1];
  }

  /** Values pushed since the last MARK. */
  private popMark(): PickleValue[] {
    const mark = this.marks.pop();
    if (mark === undefined) throw this.malformed("it closes what it never opened");
    return this.stack.splice(mark);
  }

  /** Constants; false where `opcode` is none. */
  private pushScalar(opcode: number): boolean {
    const { bytes, stack } = this;
    if (opcode === OP.NONE) stack.push(null);
    else if (opcode === OP.NEWTRUE) stack.push(true);
    else if (opcode === OP.NEWFALSE) stack.push(false);
    else if (opcode === OP.BININT1) stack.push(bytes[this.take(1)]);
    else if (opcode === OP.BININT2) stack.push(bytes.readUInt16LE(this.take(2)));
    else if (opcode === OP.BININT) stack.push(bytes.readInt32LE(this.take(4)));
    else if (opcode === OP.BINFLOAT) stack.push(bytes.readDoubleBE(this.take(8)));
    else if (opcode === OP.LONG1) stack.push(this.readLong());
    else if (opcode === OP.BINUNICODE) stack.push(this.readText(bytes.readUInt32LE(this.take(4))));
    else if (opcode === OP.SHORT_BINSTRING) stack.push(this.readText(bytes[this.take(1)]));
    else return false;
    return true;
  }

  private readText(size: number): string {
    const from = this.take(size);
    return this.bytes.toString("utf8", from, from + size);
  }

  /** LONG1: a little-endian two's complement integer. */
  private readLong(): number {
    const size = this.bytes[this.take(1)];
    if (size === 0) return 0;
    if (size > 8) throw this.refused(`an integer of ${size} bytes`);
    const padded = Buffer.alloc(8, this.bytes[this.at + size - 1] & 0x80 ? 0xff : 0);
    const from = this.take(size);
    this.bytes.copy(padded, 0, from, from + size);
    const value = Number(padded.readBigInt64LE(0));
    if (!Number.isSafeInteger(value)) throw this.refused("an integer above 2^53");
    return value;
  }

  /** Containers, memo and marks; false where `opcode` is none of them. */
  private build(opcode: number): boolean {
    const { stack } = this;
    if (opcode === OP.EMPTY_DICT) stack.push(new Map());
    else if (opcode === OP.EMPTY_LIST || opcode === OP.EMPTY_TUPLE) stack.push([]);
    else if (opcode === OP.MARK) this.mark();
    else if (opcode === OP.TUPLE) stack.push(this.popMark());
    else if (opcode >= OP.TUPLE1 && opcode <= OP.TUPLE3) this.shortTuple(opcode - OP.TUPLE1 + 1);
    else if (opcode === OP.APPEND) this.append([this.pop()]);
    else if (opcode === OP.APPENDS) this.append(this.popMark());
    else if (opcode === OP.SETITEM) this.setItems([this.pop(), this.pop()].reverse());
    else if (opcode === OP.SETITEMS) this.setItems(this.popMark());
    else if (opcode === OP.BINPUT) this.memo.set(this.bytes[this.take(1)], this.top());
    else if (opcode === OP.LONG_BINPUT)
      this.memo.set(this.bytes.readUInt32LE(this.take(4)), this.top());
    else if (opcode === OP.BINGET) stack.push(this.recall(this.bytes[this.take(1)]));
    else if (opcode === OP.LONG_BINGET)
      stack.push(this.recall(this.bytes.readUInt32LE(this.take(4))));
    else return false;
    return true;
  }

  private mark(): void {
    if (this.marks.length >= MAX_DEPTH) throw this.refused(`nesting deeper than ${MAX_DEPTH}`);
    this.marks.push(this.stack.length);
  }

  private shortTuple(size: number): void {
    const items: PickleValue[] = [];
    for (let i = 0; i < size; i++) items.unshift(this.pop());
    this.stack.push(items);
  }

  private append(items: readonly PickleValue[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw this.malformed("it appends to what is no list");
    for (const item of items) list.push(item);
  }

  private setItems(items: readonly PickleValue[]): void {
    const dict = this.top();
    if (!(dict instanceof Map)) throw this.malformed("it sets an entry of what is no dict");
    if (items.length % 2) throw this.malformed("a key of a dict has no value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key !== "string" && typeof key !== "number") {
        throw this.refused("a dict whose key is neither text nor a number");
      }
      dict.set(key, items[i + 1]);
    }
  }

  private recall(index: number): PickleValue {
    const value = this.memo.get(index);
    if (value === undefined) throw this.malformed(`it recalls entry ${index}, never stored`);
    return value;
  }

  /** Opcodes through which a pickle reaches outside of itself. */
  private machine(opcode: number): void {
    if (opcode === OP.PROTO) this.protocol(this.bytes[this.take(1)]);
    else if (opcode === OP.GLOBAL) this.stack.push(this.readGlobal());
    else if (opcode === OP.BINPERSID) this.stack.push({ kind: "persistent", id: this.pop() });
    else if (opcode === OP.REDUCE) this.reduce();
    else if (opcode === OP.BUILD) this.buildState();
    else throw this.refused(`opcode 0x${opcode.toString(16)} at byte ${this.at - 1}`);
  }

  private protocol(version: number): void {
    if (version > 2) throw this.refused(`pickle protocol ${version}, torch.save writes 2`);
  }

  private readGlobal(): PickleGlobal {
    const lines: string[] = [];
    for (let i = 0; i < 2; i++) {
      const end = this.bytes.indexOf(0x0a, this.at);
      if (end < 0 || end - this.at > MAX_GLOBAL_BYTES) throw this.malformed("a name has no end");
      lines.push(this.bytes.toString("latin1", this.at, end));
      this.at = end + 1;
    }
    const name = lines.join(".");
    if (!CALLABLE.has(name) && !STORAGE_BYTES.has(name)) {
      throw this.refused(`it asks for ${JSON.stringify(name)}, which is not on the allow-list`);
    }
    return { kind: "global", name };
  }

  /** REDUCE: f(*args). OrderedDict becomes a Map, the others a node; nothing is run. */
  private reduce(): void {
    const args = this.pop();
    const callee = this.pop();
    if (!Array.isArray(args)) throw this.malformed("a call has no argument tuple");
    if (!isNode(callee) || callee.kind !== "global" || !CALLABLE.has(callee.name)) {
      const what = isNode(callee) && callee.kind === "global" ? callee.name : "a value";
      throw this.refused(`a call of ${what}`);
    }
    if (callee.name !== "collections.OrderedDict") {
      this.stack.push({ kind: "call", callee: callee.name, args });
      return;
    }
    if (args.length > 0) throw this.refused("an OrderedDict made from arguments");
    this.stack.push(new Map());
  }

  /** BUILD: attributes set on an object. Only a state dict's version notes occur: dropped. */
  private buildState(): void {
    this.pop();
    if (!(this.top() instanceof Map)) throw this.refused("attributes set on an object");
  }
}
