/** SwinIR through every command: train, inspect, quantize, eval, upscale. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { command as evaluate } from "../../lib/cli/commands/eval.ts";
import { command as inspect } from "../../lib/cli/commands/inspect.ts";
import { command as quantize } from "../../lib/cli/commands/quantize.ts";
import { command as train } from "../../lib/cli/commands/train.ts";
import { command as upscale } from "../../lib/cli/commands/upscale.ts";
import { openModel } from "../../lib/infer/model.ts";
import { TileRunner } from "../../lib/infer/tiles.ts";
import { encodePng } from "../../lib/io/png.ts";
import { readSafetensors, writeSafetensors } from "../../lib/io/safetensors.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { asModel, TINY_SWIN, tinySwin } from "../tiny_net.ts";
import { picture, runCommand } from "./tiny_model.ts";

let folder = "";
let images = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "spr2q-test-"));
  images = join(folder, "images");
  mkdirSync(images);
  for (let i = 0; i < 4; i++) {
    writeFileSync(join(images, `${i}.png`), encodePng(picture(70 + 2 * i, 64, 3, 8, 30 + i)));
  }
  const { scale: _, ...sizes } = TINY_SWIN;
  writeFileSync(join(folder, "sizes.json"), JSON.stringify(sizes));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a trained SwinIR is inspected, quantised, measured and used", async () => {
  const sizes = ["--config", join(folder, "sizes.json"), "--batch", "1", "--patch", "16"];
  const data = ["--train", images, "--quiet", "--json"];
  const out = join(folder, "float");
  const made = await runCommand(train, [
    ...["--arch", "swinir", "--out", out, "--iterations", "20", ...sizes, ...data],
  ]);
  expect(made.code, made.err).toBe(0);
  const float = JSON.parse(made.out).model;
  expect(JSON.parse((await runCommand(inspect, [float, "--json"])).out)).toMatchObject({
    architecture: "swinir",
    config: TINY_SWIN,
    bits: { weights: 32, scanOperands: null },
  });

  const work = ["--bits", "4", "--iterations", "6", "--osrc", "2", "--batch", "1", "--patch", "16"];
  const target = join(folder, "packed");
  const run = ["--model", float, "--out", target, "--recipe", "quick", ...work, ...data];
  const packed = JSON.parse((await runCommand(quantize, run)).out);
  expect(Object.keys(packed.table.layers)).toHaveLength(3 * 6);
  const { out: text } = await runCommand(inspect, [packed.model]);
  expect(text).toContain("swinir x2: 20 channels, layers 2+1, 2 heads, window 4, hidden 28");
  expect(text).toMatch(/weights of linear layers +18 /);
  expect(text).not.toMatch(/scan|CPE|other sites/);

  const score = async (model: string): Promise<{ psnr: number }> => {
    const line = ["--model", model, "--hr", images, "--quiet", "--json"];
    return JSON.parse((await runCommand(evaluate, line)).out);
  };
  const [before, after] = [await score(float), await score(packed.model)];
  expect(before).toMatchObject({ scale: 2, routing: null, seed: null });
  expect(Math.abs(after.psnr - before.psnr)).toBeLessThan(3);

  const small = join(folder, "small.png");
  writeFileSync(small, encodePng(picture(13, 8)));
  const large = join(folder, "large.png");
  const line = [small, "-o", large, "--model", packed.model, "--json", "--quiet"];
  const done = JSON.parse((await runCommand(upscale, line)).out);
  expect(done).toMatchObject({ bits: 4, scope: "best", routing: null });
  expect(done.images[0]).toMatchObject({ width: 26, height: 16 });
  expect(readFileSync(large).subarray(1, 4).toString()).toBe("PNG");
});

test("images are mirrored as the official test driver does: a window more where divisible", async () => {
  const net = tinySwin();
  const [width, height] = [12, 7];
  const data = Float32Array.from({ length: width * height * 3 }, (_, i) => Math.sin(i) / 2 + 0.5);
  const [wide, high] = [16, 8];
  const mirrored = new Float32Array(wide * high * 3);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const [u, v] = [x < width ? x : 2 * width - 1 - x, y < height ? y : 2 * height - 1 - y];
      for (let c = 0; c < 3; c++) {
        mirrored[(y * wide + x) * 3 + c] = data[(v * width + u) * 3 + c];
      }
    }
  }
  const input = new Var(mirrored, [1, high, wide, 3]);
  const whole = net.forward(new Graph("running"), input, new FloatSites(), new Router({})).data;
  const options = { tiling: "none", routing: "sampled", seed: 0 } as const;
  const got = await new TileRunner(asModel(net)).run({ data, width, height }, options);
  expect([got.width, got.height]).toEqual([24, 14]);
  for (let y = 0; y < 14; y++) {
    const row = whole.subarray(y * wide * 2 * 3, (y * wide * 2 + 24) * 3);
    expect(got.data.subarray(y * 24 * 3, (y + 1) * 24 * 3)).toEqual(Float32Array.from(row));
  }
});

test("a configuration that fits no SwinIR is ERR_CONFIG and names the entry", async () => {
  const file = join(folder, "bad.json");
  const line = [
    "--arch",
    "swinir",
    "--config",
    file,
    "--train",
    images,
    "--out",
    join(folder, "x"),
  ];
  const refused = async (config: object): Promise<string> => {
    writeFileSync(file, JSON.stringify(config));
    return (await runCommand(train, line)).err;
  };
  expect(await refused({ states: 8 })).toMatch(/ERR_CONFIG.*"states"/s);
  expect(await refused({ depths: [] })).toMatch(/ERR_CONFIG.*list of whole numbers for "depths"/s);
  expect(await refused({ channels: 62 })).toMatch(/channels divisible by heads/);
});

test("a packed file that names an unknown architecture is ERR_ARCHITECTURE", async () => {
  const path = join(folder, "packed", "model.safetensors");
  const { tensors, metadata } = readSafetensors(readFileSync(path), path);
  const strange = join(folder, "strange.safetensors");
  writeFileSync(strange, writeSafetensors(tensors, { ...metadata, architecture: "edsr" }));
  await expect(openModel(strange)).rejects.toMatchObject({ code: "ERR_ARCHITECTURE" });
  const config = JSON.stringify({ ...TINY_SWIN, heads: 3 });
  writeFileSync(strange, writeSafetensors(tensors, { ...metadata, config }));
  await expect(openModel(strange)).rejects.toMatchObject({ code: "ERR_CHECKPOINT" });
});
