import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { HostTensor } from "../../lib/io/host_tensor.ts";
import { writeSafetensors } from "../../lib/io/safetensors.ts";
import { readWeights } from "../../lib/io/weights.ts";
import { refusalOf, temporaryFolder } from "./helpers.ts";
import { makePth } from "./make_pth.ts";

const DATA = Float32Array.of(1, -2, 3);
const PTH = makePth(
  [{ name: "w", type: "FloatStorage", storage: "0", length: 3, shape: [3] }],
  { 0: DATA },
  { wrappers: ["params"] },
);

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(temporaryFolder(), name);
  writeFileSync(path, bytes);
  return path;
}

function safetensors(tensor: HostTensor): Uint8Array {
  return writeSafetensors(new Map([["w", tensor]]), { scale: "4" });
}

test("the kind of a weight file is told by its content, not by its name", async () => {
  const pth = await readWeights(file("a.safetensors", PTH));
  expect(pth.tensors.get("w")).toMatchObject({ shape: [3], data: DATA });
  expect(pth.metadata).toEqual({});
  expect(pth.sha256).toBe(createHash("sha256").update(PTH).digest("hex"));
  const bytes = safetensors({ shape: [3], dtype: "f32", data: DATA });
  const other = await readWeights(file("b.pth", bytes));
  expect(other.tensors.get("w")?.data).toEqual(DATA);
  expect(other.metadata).toEqual({ scale: "4" });
});

test("a safetensors file is known whatever its header's length, also one that starts like a pickle", async () => {
  const path = join(temporaryFolder(), "model.safetensors");
  const tensors = new Map([["w", { shape: [1], dtype: "f32", data: Float32Array.of(1) } as const]]);
  const firstBytes = new Set<number>();
  for (let i = 0; i < 256; i += 4) {
    const bytes = writeSafetensors(tensors, { note: "x".repeat(i) });
    firstBytes.add(bytes[0]);
    writeFileSync(path, bytes);
    expect((await readWeights(path)).metadata.note).toHaveLength(i);
  }
  expect(firstBytes).toContain(0x80);
});

test("a missing weight file and a folder are refused with ERR_IO and the path", async () => {
  const missing = join(temporaryFolder(), "none.pth");
  expect(await refusalOf(readWeights(missing))).toMatch(/^ERR_IO: .*none\.pth: it does not exist/);
  const folder = temporaryFolder();
  expect(await refusalOf(readWeights(folder))).toMatch(/^ERR_IO: .*it is a folder/);
});

test("what is no weight file is refused by what it looks like", async () => {
  const cases: [string | Uint8Array, RegExp][] = [
    ["", /an empty file/],
    ["version https://git-lfs.github.com/spec/v1\n", /Git LFS pointer/],
    ["<!DOCTYPE html><html></html>", /web page/],
    ["just some text, nothing more", /an unknown format/],
    [Uint8Array.of(0x80, 2, 0x8a, 10), /legacy/],
    [Buffer.from("\x89PNG\r\n\x1a\n0000", "latin1"), /a PNG image/],
  ];
  for (const [bytes, message] of cases) {
    const text = await refusalOf(readWeights(file("w.pth", bytes)));
    expect(text).toMatch(/^ERR_CHECKPOINT: .*w\.pth/);
    expect(text).toMatch(message);
  }
});

test("a NaN or infinity in any float tensor is refused, naming the tensor", async () => {
  const bad: HostTensor[] = [
    { shape: [3], dtype: "f32", data: Float32Array.of(1, 2, Number.NaN) },
    { shape: [3], dtype: "f32", data: Float32Array.of(1, 2, Number.NEGATIVE_INFINITY) },
    { shape: [3], dtype: "f16", data: Uint16Array.of(0, 0, 0x7e00) },
  ];
  for (const tensor of bad) {
    const text = await refusalOf(readWeights(file("w.safetensors", safetensors(tensor))));
    expect(text).toMatch(/^ERR_CHECKPOINT: .*tensor "w".*element 2/);
  }
  const overflow = makePth(
    [{ name: "d", type: "DoubleStorage", storage: "0", length: 1, shape: [1] }],
    { 0: Float64Array.of(1e300) },
  );
  expect(await refusalOf(readWeights(file("w.pth", overflow)))).toMatch(/tensor "d"/);
});

test("a weight file cut at any sixteenth is refused with ERR_CHECKPOINT", async () => {
  const whole = [PTH, safetensors({ shape: [3], dtype: "f32", data: DATA })];
  for (const bytes of whole) {
    for (let part = 0; part < 16; part++) {
      const cut = bytes.subarray(0, Math.floor((bytes.length * part) / 16));
      expect(await refusalOf(readWeights(file("w.pth", cut)))).toMatch(/^ERR_CHECKPOINT/);
    }
  }
});
