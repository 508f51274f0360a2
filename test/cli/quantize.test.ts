/** `spr2q quantize` on input that it must refuse: a code, exit 1, and nothing left behind. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { command } from "../../lib/cli/commands/quantize.ts";
import type { HostTensor, TensorMap } from "../../lib/io/host_tensor.ts";
import { encodePng } from "../../lib/io/png.ts";
import { readSafetensors, writeSafetensors } from "../../lib/io/safetensors.ts";

import { makePthOf, pickle } from "../io/make_pth.ts";
import { type Outcome, picture, runCommand, writeTinyModel } from "./tiny_model.ts";

let folder = "";
let model = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "spr2q-cli-"));
  model = await writeTinyModel(folder);
  mkdirSync(join(folder, "train"));
  for (let i = 0; i < 4; i++) {
    const image = picture(64, 64, 3, 8, 30 + i);
    writeFileSync(join(folder, "train", `${i}.png`), encodePng(image));
  }
});

function quantize(file: string, out: string, ...more: string[]): Promise<Outcome> {
  const common = ["--train", join(folder, "train"), "--out", join(folder, out), "--quiet"];
  const sizes = ["--batch", "1", "--patch", "16", "--iterations", "2", "--osrc", "0"];
  return runCommand(command, ["--model", file, "--bits", "4", ...common, ...sizes, ...more]);
}

/** Writes the tiny checkpoint after `change`; returns its path. */
function changed(name: string, change: (tensors: TensorMap) => void): string {
  const { tensors } = readSafetensors(readFileSync(model), model);
  change(tensors);
  const path = join(folder, name);
  writeFileSync(path, writeSafetensors(tensors, {}));
  return path;
}

const FC2 = "layers.0.residual_group.layers.0.convffn1.fc2.weight";

describe("a weight file is refused, by name, where it", () => {
  const cases: [string, () => string, string, RegExp][] = [
    [
      "lacks a tensor",
      () => changed("missing", (t) => t.delete(FC2)),
      "ERR_CHECKPOINT",
      /convffn1\.fc2\.weight" is missing/,
    ],
    [
      "has a foreign tensor",
      () =>
        changed("extra", (t) =>
          t.set("intruder", { shape: [1], dtype: "f32", data: Float32Array.of(1) }),
        ),
      "ERR_CHECKPOINT",
      /intruder/,
    ],
    [
      "has a transposed tensor",
      () =>
        changed("turned", (t) => {
          const kept = t.get(FC2) as HostTensor;
          t.set(FC2, { ...kept, shape: [...kept.shape].reverse() });
        }),
      "ERR_CHECKPOINT",
      /transposed/,
    ],
    [
      "holds a NaN",
      () =>
        changed("nan", (t) => {
          const kept = t.get(FC2) as HostTensor;
          const data = Float32Array.from(kept.data as Float32Array);
          data[3] = Number.NaN;
          t.set(FC2, { ...kept, data });
        }),
      "ERR_CHECKPOINT",
      /NaN or infinity at element 3/,
    ],
    [
      "belongs to no known network",
      () =>
        changed("alien", (t) => {
          t.clear();
          t.set("transformer.h.0", { shape: [1], dtype: "f32", data: Float32Array.of(1) });
        }),
      "ERR_ARCHITECTURE",
      /transformer\.h\.0/,
    ],
    [
      "is cut short",
      () => {
        const path = join(folder, "short");
        writeFileSync(path, readFileSync(model).subarray(0, 5000));
        return path;
      },
      "ERR_CHECKPOINT",
      /short/,
    ],
    [
      "asks for os.system",
      () => {
        const call = pickle.call(pickle.global("os", "system"), pickle.text("true"));
        const path = join(folder, "evil.pth");
        writeFileSync(path, makePthOf(pickle.dict([["params", call]])));
        return path;
      },
      "ERR_PICKLE",
      /os\.system/,
    ],
    ["is not there", () => join(folder, "nowhere.pth"), "ERR_IO", /nowhere/],
  ];
  for (const [what, make, code, message] of cases) {
    test(what, async () => {
      const out = `out-${what.replaceAll(" ", "-")}`;
      const result = await quantize(make(), out, "--json");
      expect(result.code).toBe(1);
      const { error } = JSON.parse(result.out);
      expect(error.code).toBe(code);
      expect(error.message).toMatch(message);
      const left = existsSync(join(folder, out)) ? readdirSync(join(folder, out)) : [];
      expect(left.filter((name) => name.startsWith("model"))).toEqual([]);
    });
  }
});

test("3 bits are refused with the widths there are", async () => {
  const { code, err } = await quantize(model, "three", "--bits", "3");
  expect(code).toBe(1);
  expect(err).toMatch(/--bits: expected 8, 4, 2 or 1, got 3/);
});

test("an output folder that is a file is ERR_IO", async () => {
  writeFileSync(join(folder, "occupied"), "mine");
  const { code, err } = await quantize(model, "occupied");
  expect(code).toBe(1);
  expect(err).toMatch(/ERR_IO/);
  expect(readFileSync(join(folder, "occupied"), "utf8")).toBe("mine");
});

test("cuda is refused, not replaced", async () => {
  expect((await quantize(model, "c", "--device", "cuda")).err).toMatch(/ERR_GPU_UNAVAILABLE/);
});

test("Ctrl-C ends with 130 and a checkpoint that --resume goes on from", async () => {
  const stop = new AbortController();
  const common = ["--model", model, "--bits", "2", "--train", join(folder, "train")];
  const rest = ["--out", join(folder, "stop"), "--batch", "1", "--patch", "16", "--osrc", "0"];
  const line = [...common, ...rest, "--iterations", "60"];
  const halted = await runCommand(command, line, stop.signal, (text) => {
    if (text.includes("rgt")) stop.abort();
  });
  expect(halted.code).toBe(130);
  expect(existsSync(join(folder, "stop", "checkpoint.safetensors"))).toBe(true);
  const again = await runCommand(command, [...line, "--quiet", "--resume", "--json"]);
  expect(again.code).toBe(0);
  expect(JSON.parse(again.out)).toMatchObject({ bits: 2, scope: "best", recipe: "best" });
  expect(readdirSync(join(folder, "stop"))).toContain("report.html");
});
