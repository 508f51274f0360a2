import { expect, test } from "vitest";
import { elementCount, toFloat32 } from "../../lib/io/host_tensor.ts";
import { readPth } from "../../lib/io/pth.ts";
import { readWeights } from "../../lib/io/weights.ts";
import { hasTestData, testData } from "../data.ts";
import { random, refusal } from "./helpers.ts";
import {
  contiguous,
  makePth,
  makePthOf,
  type PthTensor,
  pickle,
  pickleTensor,
  rawBytes,
} from "./make_pth.ts";

const FLOATS = Float32Array.from({ length: 24 }, (_, i) => i - 3.5);
const WHOLE: PthTensor = {
  name: "w",
  type: "FloatStorage",
  storage: "0",
  length: 24,
  shape: [4, 6],
};

function readOne(tensor: PthTensor, data: ArrayBufferView) {
  return readPth(makePth([tensor], { [tensor.storage]: data }), "f.pth").get(tensor.name)!;
}

test("a float tensor comes back with its shape and values", () => {
  const tensor = readOne(WHOLE, FLOATS);
  expect(tensor).toEqual({ shape: [4, 6], dtype: "f32", data: FLOATS });
});

test("wrappers are looked through in the order params, params_ema, bare dict", () => {
  const storages = { a: Float32Array.of(1), b: Float32Array.of(2) };
  const one = { name: "w", type: "FloatStorage", length: 1, shape: [1] } as const;
  const dict = (storage: string) => pickle.dict([["w", pickleTensor({ ...one, storage })]], true);
  const read = (entries: [string, Buffer][]) =>
    readPth(makePthOf(pickle.dict(entries), storages), "f.pth").get("w")?.data[0];
  expect(
    read([
      ["params_ema", dict("a")],
      ["params", dict("b")],
    ]),
  ).toBe(2);
  expect(
    read([
      ["params_ema", dict("a")],
      ["other", dict("b")],
    ]),
  ).toBe(1);
  expect(read([["w", pickleTensor({ ...one, storage: "b" })]])).toBe(2);
});

test("a leading module. is dropped from names, and only there", () => {
  const tensors = ["module.a", "b.module.c"].map((name) => ({ ...WHOLE, name }));
  const names = [...readPth(makePth(tensors, { 0: FLOATS }), "f.pth").keys()];
  expect(names).toEqual(["a", "b.module.c"]);
  const clash = ["module.a", "a"].map((name) => ({ ...WHOLE, name }));
  expect(refusal(() => readPth(makePth(clash, { 0: FLOATS }), "f.pth"))).toMatch(
    /"a" appears twice/,
  );
});

test("a parameter is read as the tensor inside of it", () => {
  expect(readOne({ ...WHOLE, parameter: true }, FLOATS).data).toEqual(FLOATS);
});

test("several tensors may share a storage, at their own offsets", () => {
  const tensors = [0, 12].map((offset, i) => ({ ...WHOLE, name: `w${i}`, offset, shape: [12] }));
  const read = readPth(makePth(tensors, { 0: FLOATS }), "f.pth");
  expect(read.get("w1")?.data).toEqual(FLOATS.slice(12));
});

test("a transposed tensor comes out as PyTorch showed it", () => {
  const tensor = readOne({ ...WHOLE, shape: [6, 4], stride: [1, 6] }, FLOATS);
  for (let i = 0; i < 6; i++) {
    for (let j = 0; j < 4; j++) expect(tensor.data[i * 4 + j]).toBe(FLOATS[j * 6 + i]);
  }
});

test("any strides and offset agree with indexing by hand, for any rank", () => {
  const next = random(3);
  for (let round = 0; round < 200; round++) {
    const rank = Math.floor(next() * 5);
    const shape = Array.from(
      { length: rank },
      () => Math.floor(next() * 4) + (next() < 0.1 ? 0 : 1),
    );
    const stride = shape.map(() => Math.floor(next() * 6));
    const offset = Math.floor(next() * 5);
    const length =
      offset + 1 + shape.reduce((sum, s, i) => sum + Math.max(0, s - 1) * stride[i], 0);
    const data = Float32Array.from({ length }, (_, i) => i);
    const got = readOne({ ...WHOLE, length, offset, shape, stride }, data);
    const strides = contiguous(shape);
    const want = Array.from({ length: elementCount(shape) }, (_, flat) =>
      shape.reduce((at, s, i) => at + (Math.floor(flat / strides[i]) % s) * stride[i], offset),
    );
    expect([...got.data]).toEqual(want);
  }
});

test("every storage type is read as the type documented for it", () => {
  const cases: [string, ArrayBufferView, string, number[]][] = [
    ["FloatStorage", Float32Array.of(1.5, -2), "f32", [1.5, -2]],
    ["DoubleStorage", Float64Array.of(0.1, -2), "f32", [Math.fround(0.1), -2]],
    ["HalfStorage", Uint16Array.of(0x3e00, 0xc000), "f32", [1.5, -2]],
    ["BFloat16Storage", Uint16Array.of(0x3fc0, 0xc000), "f32", [1.5, -2]],
    ["LongStorage", BigInt64Array.of(5n, -6n), "i32", [5, -6]],
    ["IntStorage", Int32Array.of(5, -6), "i32", [5, -6]],
    ["ShortStorage", Int16Array.of(5, -6), "i32", [5, -6]],
    ["CharStorage", Int8Array.of(5, -6), "i32", [5, -6]],
    ["ByteStorage", Uint8Array.of(5, 250), "u8", [5, 250]],
    ["BoolStorage", Uint8Array.of(1, 0), "u8", [1, 0]],
  ];
  for (const [type, data, dtype, values] of cases) {
    const tensor = readOne({ ...WHOLE, type, length: 2, shape: [2] }, data);
    expect([type, tensor.dtype, ...toFloat32(tensor)]).toEqual([type, dtype, ...values]);
  }
  const wide = { ...WHOLE, type: "LongStorage", length: 1, shape: [] };
  expect(readOne(wide, BigInt64Array.of(2n ** 40n))).toMatchObject({ shape: [], dtype: "i64" });
});

test("ZIP64 records, any prefix and a byteorder entry are accepted", () => {
  const options = { zip64: true, prefix: "net_x4", byteorder: "little", wrappers: ["params"] };
  expect(readPth(makePth([WHOLE], { 0: FLOATS }, options), "f.pth").size).toBe(1);
  const big = makePth([WHOLE], { 0: FLOATS }, { byteorder: "big" });
  expect(refusal(() => readPth(big, "f.pth"))).toMatch(/ERR_CHECKPOINT.*big-endian/);
});

test("a tensor that lies about its storage is refused by its name", () => {
  const lies: [Partial<PthTensor>, RegExp][] = [
    [{ length: 25 }, /claims 25 elements/],
    [{ length: 2 ** 40 }, /claims/],
    [{ shape: [4, 7] }, /reaches element 27 of a storage of 24/],
    [{ offset: 1 }, /reaches element 24/],
    [{ stride: [600, 1] }, /reaches element 1805/],
    [{ stride: [-1, 1] }, /malformed offset, shape or stride/],
    [{ shape: [-4, -6] }, /malformed/],
    [{ stride: [1] }, /2 sides and 1 strides/],
    [{ shape: new Array(20).fill(1) }, /20 sides/],
    [{ shape: [2 ** 20, 2 ** 20], stride: [0, 0] }, /exceeds/],
    [{ shape: [2 ** 30, 2 ** 30, 2 ** 30], stride: [0, 0, 0] }, /exceeds/],
    [{ storage: "9" }, /needs the storage "archive\/data\/9"/],
    [{ type: "DoubleStorage" }, /claims 24 elements; its storage has 96 bytes/],
  ];
  for (const [lie, message] of lies) {
    const bytes = makePth([{ ...WHOLE, ...lie }], { 0: FLOATS });
    const text = refusal(() => readPth(bytes, "f.pth"));
    expect(text).toMatch(/^ERR_CHECKPOINT: f\.pth: tensor "w"/);
    expect(text).toMatch(message);
  }
});

test("many expanded tensors cannot add up to more memory than the limit", () => {
  const tensors = Array.from({ length: 9 }, (_, i) => ({
    ...WHOLE,
    name: `w${i}`,
    shape: [0, 2 ** 30],
    stride: [1, 1],
  }));
  expect(readPth(makePth(tensors, { 0: FLOATS }), "f.pth").size).toBe(9); // empty ones cost nothing
  const bomb = { ...WHOLE, shape: [2 ** 28 + 1], stride: [0] };
  expect(refusal(() => readPth(makePth([bomb], { 0: FLOATS }), "f.pth"))).toMatch(/exceeds/);
});

test("a .pth that asks for os.system is refused and nothing is run", () => {
  const attack = pickle.call(pickle.global("os", "system"), pickle.text("exit 1"));
  const bytes = makePthOf(pickle.dict([["params", attack]]));
  expect(refusal(() => readPth(bytes, "f.pth"))).toMatch(/^ERR_PICKLE: f\.pth.*"os\.system"/);
});

test("what is no state dict is refused with a hint", () => {
  const list = makePthOf(Buffer.from("]"));
  expect(refusal(() => readPth(list, "f.pth"))).toMatch(/ERR_CHECKPOINT.*expected a dict/);
  const odd = makePthOf(pickle.dict([["epoch", pickle.integer(3)]]));
  expect(refusal(() => readPth(odd, "f.pth"))).toMatch(/"epoch" is no tensor.*params/);
  expect(refusal(() => readPth(makePthOf(Buffer.from("}")), "f.pth"))).toMatch(/no tensors/);
});

test("a legacy .pth is refused with the way to mend it", () => {
  const legacy = Buffer.from([0x80, 2, 0x8a, 10, 0x6c, 0xfc]);
  expect(refusal(() => readPth(legacy, "f.pth"))).toMatch(/ERR_CHECKPOINT.*legacy.*torch\.save/);
  expect(refusal(() => readPth(Buffer.from("hello"), "f.pth"))).toMatch(/ERR_CHECKPOINT/);
});

test("a .pth cut at any sixteenth is refused", () => {
  const bytes = makePth([WHOLE], { 0: FLOATS }, { zip64: true });
  for (let part = 0; part < 16; part++) {
    const cut = bytes.subarray(0, Math.floor((bytes.length * part) / 16));
    expect(refusal(() => readPth(cut, "f.pth"))).toMatch(/^ERR_CHECKPOINT/);
  }
});

test("no flipped byte of a .pth changes a tensor unnoticed", () => {
  const bytes = makePth([WHOLE], { 0: FLOATS });
  for (let at = 0; at < bytes.length; at++) {
    const bad = Buffer.from(bytes);
    bad[at] ^= 1 << (at % 8);
    try {
      expect(readPth(bad, "f.pth").get("w")?.data).toEqual(FLOATS);
    } catch (error) {
      expect(error).toMatchObject({ name: "Spr2qError" });
    }
  }
});

test("a file that begins at an odd address is read all the same", () => {
  const bytes = makePth([WHOLE], { 0: FLOATS });
  for (let shift = 0; shift < 8; shift++) {
    const moved = Buffer.concat([Buffer.alloc(shift), bytes]);
    const view = new Uint8Array(moved.buffer, moved.byteOffset + shift, bytes.length);
    expect(rawBytes(readPth(view, "f.pth").get("w")!.data)).toEqual(rawBytes(FLOATS));
  }
});

for (const scale of [2, 4]) {
  test.skipIf(!hasTestData)(`the official x${scale} weights load whole`, async () => {
    const { tensors, sha256 } = await readWeights(
      testData(`weights/mambairv2_lightSR_x${scale}.pth`),
    );
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(tensors.size).toBe(1019);
    expect(tensors.get("relative_position_index_SA")).toMatchObject({
      shape: [256, 256],
      dtype: "i32",
    });
    tensors.delete("relative_position_index_SA");
    let parameters = 0;
    for (const tensor of tensors.values()) {
      expect(tensor.dtype).toBe("f32");
      parameters += tensor.data.length;
    }
    expect([tensors.size, parameters]).toEqual([1018, scale === 2 ? 774092 : 789680]);
    expect(tensors.get("upsample.0.weight")?.shape).toEqual([3 * scale * scale, 48, 3, 3]);
  });
}
