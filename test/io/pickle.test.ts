import { expect, test } from "vitest";
import { readPickle } from "../../lib/io/pickle.ts";
import { random, refusal } from "./helpers.ts";
import { pickle } from "./make_pth.ts";

const read = (value: Buffer) => readPickle(pickle.file(value), "f.pth");
const raw = (...bytes: (number | string)[]) =>
  Buffer.concat(
    bytes.map((b) => (typeof b === "number" ? Buffer.of(b) : Buffer.from(b, "latin1"))),
  );

test("constants of every kind are read", () => {
  expect(read(raw("N"))).toBe(null);
  expect(read(raw(0x88))).toBe(true);
  expect(read(raw(0x89))).toBe(false);
  for (const value of [0, 255, 256, 65535, 65536, -1, -(2 ** 31) + 1, 2 ** 40, -(2 ** 40)]) {
    expect(read(pickle.integer(value))).toBe(value);
  }
  expect(read(raw(0x8a, 0))).toBe(0);
  expect(read(raw(0x8a, 1, 0xff))).toBe(-1);
  expect(read(raw("G", 0x3f, 0xf8, 0, 0, 0, 0, 0, 0))).toBe(1.5);
  expect(read(pickle.text("Größe"))).toBe("Größe");
  expect(read(raw("U", 2, "ab"))).toBe("ab");
});

test("lists, tuples, dicts and the memo are read", () => {
  expect(read(raw("](K", 1, "K", 2, "e"))).toEqual([1, 2]);
  expect(read(raw("]K", 7, "a"))).toEqual([7]);
  expect(read(raw("K", 1, "K", 2, "K", 3, 0x87))).toEqual([1, 2, 3]);
  expect(read(raw(")"))).toEqual([]);
  expect(read(raw("}K", 1, "K", 2, "s"))).toEqual(new Map([[1, 2]]));
  expect(read(raw("X", 1, 0, 0, 0, "x", "q", 9, "h", 9, 0x86))).toEqual(["x", "x"]);
  expect(read(raw("K", 4, "r", 1, 1, 0, 0, "j", 1, 1, 0, 0, 0x86))).toEqual([4, 4]);
});

test("an OrderedDict becomes a Map, and its attributes are dropped", () => {
  const dict = pickle.dict([["a", pickle.integer(1)]], true);
  const state = pickle.dict([["_metadata", pickle.orderedDict()]]);
  expect(read(Buffer.concat([dict, state, Buffer.from("b")]))).toEqual(new Map([["a", 1]]));
});

test("an allowed call yields a node and is not made", () => {
  const call = pickle.call(pickle.global("torch._utils", "_rebuild_parameter"), pickle.integer(3));
  const node = { kind: "call", callee: "torch._utils._rebuild_parameter", args: [3] };
  expect(read(call)).toEqual(node);
  const persistent = Buffer.concat([pickle.text("id"), Buffer.from("Q")]);
  expect(read(persistent)).toEqual({ kind: "persistent", id: "id" });
});

const FORBIDDEN = [
  ["os", "system"],
  ["posix", "system"],
  ["builtins", "eval"],
  ["builtins", "getattr"],
  ["torch", "load"],
  ["torch._utils", "_rebuild_tensor_v3"],
  ["collections", "OrderedDict.fromkeys"],
  ["__builtin__", "exec"],
];
for (const [module, name] of FORBIDDEN) {
  test(`a pickle that asks for ${module}.${name} is refused with ERR_PICKLE naming it`, () => {
    const message = refusal(() =>
      read(pickle.call(pickle.global(module, name), pickle.text("touch /tmp/x"))),
    );
    expect(message).toMatch(/^ERR_PICKLE: f\.pth/);
    expect(message).toContain(`"${module}.${name}"`);
  });
}

test("every other opcode that could run code or build objects is refused", () => {
  // INST, OBJ, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, EXT1, EXT2, EXT4, PERSID, INT, MEMOIZE, FRAME
  for (const opcode of [0x69, 0x6f, 0x81, 0x92, 0x93, 0x82, 0x83, 0x84, 0x50, 0x49, 0x94, 0x95]) {
    const message = refusal(() => read(raw(opcode, 1, 0, 0, 0, 0, 0, 0, 0)));
    expect(message).toMatch(/^ERR_PICKLE: .*opcode 0x/);
  }
});

test("calling a storage type, a string, or OrderedDict with arguments is refused", () => {
  const storage = pickle.global("torch", "FloatStorage");
  expect(refusal(() => read(pickle.call(storage, pickle.integer(1))))).toMatch(
    /ERR_PICKLE.*call of torch.FloatStorage/,
  );
  expect(refusal(() => read(pickle.call(pickle.text("os.system"))))).toMatch(/ERR_PICKLE/);
  const dict = pickle.global("collections", "OrderedDict");
  expect(refusal(() => read(pickle.call(dict, raw("]"))))).toMatch(/ERR_PICKLE/);
});

test("attributes set on anything but a dict are refused", () => {
  expect(refusal(() => read(raw("]}b")))).toMatch(/ERR_PICKLE.*attributes/);
});

test("a newer protocol is refused by its number", () => {
  expect(refusal(() => readPickle(Buffer.of(0x80, 4, 0x4e, 0x2e), "f.pth"))).toMatch(
    /ERR_PICKLE.*protocol 4/,
  );
});

test("nesting, long integers, long names and odd keys have limits", () => {
  expect(refusal(() => read(raw("(".repeat(65))))).toMatch(/ERR_PICKLE.*nesting/);
  expect(refusal(() => read(raw(0x8a, 9, "123456789")))).toMatch(/ERR_PICKLE.*9 bytes/);
  expect(refusal(() => read(raw(0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0x70)))).toMatch(/above 2\^53/);
  expect(refusal(() => read(raw(`c${"x".repeat(300)}\ny\n`)))).toMatch(/name has no end/);
  expect(refusal(() => read(raw("}](s")))).toMatch(/^ERR_/);
  expect(refusal(() => read(raw("}]K", 1, "s")))).toMatch(/ERR_PICKLE.*key/);
});

test("a stack that runs empty, an unknown memo entry and a missing end are refused", () => {
  const broken = ["t", "R", "a", "K", "X\xff\xff\xff\x7f", "h\x07", "NN", "](a", "}(K\x01u", "N(."];
  for (const text of broken) {
    expect(refusal(() => read(raw(text)))).toMatch(/^ERR_(CHECKPOINT|PICKLE): f\.pth/);
  }
  expect(refusal(() => readPickle(Buffer.alloc(0), "f.pth"))).toMatch(/ends too early/);
});

test("a container that holds itself is read without endless recursion", () => {
  const list = read(raw("]q", 0, "h", 0, "a")) as unknown[];
  expect(list[0]).toBe(list);
});

test("random bytes never do anything but parse or be refused", () => {
  const next = random(7);
  const opcodes = Buffer.from("NKMJGXU}]()taesuqrhjcQRb.\x80\x85\x86\x87\x88\x89\x8a", "latin1");
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const size = 1 + Math.floor(next() * 40);
    const bytes = new Uint8Array(size).map(() =>
      next() < 0.7 ? opcodes[Math.floor(next() * opcodes.length)] : Math.floor(next() * 256),
    );
    try {
      readPickle(bytes, "f.pth");
    } catch (error) {
      expect(error).toMatchObject({ name: "Spr2qError" });
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(2000);
});
