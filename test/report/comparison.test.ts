/** What a report compares: crops where it matters, the images of Figure 2 first. */
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodePng, encodePng, fromRgbFloat, type RasterImage } from "../../lib/io/png.ts";
import { compareOn, mostDifferent } from "../../lib/report/comparison.ts";
import { asModel, pictures, tinySwin } from "../tiny_net.ts";

const grey = (width: number, height: number): RasterImage => ({
  width,
  height,
  channels: 3,
  depth: 8,
  data: new Uint8Array(width * height * 3).fill(128),
});

test("the crop lies over the place where two images differ most", () => {
  const [a, b] = [grey(100, 80), grey(100, 80)];
  for (let y = 50; y < 60; y++) for (let x = 70; x < 80; x++) b.data[(y * 100 + x) * 3 + 1] = 200;
  b.data[0] = 131;
  const [x, y] = mostDifferent(a, b, 32);
  expect(x).toBeLessThanOrEqual(70);
  expect(x + 32).toBeGreaterThanOrEqual(80);
  expect(y).toBeLessThanOrEqual(50);
  expect(y + 32).toBeGreaterThanOrEqual(60);
  expect(x + 32).toBeLessThanOrEqual(100);
});

test("a folder gives three contenders and three sliders an image, Figure 2's images first", async () => {
  const dir = await mkdtemp(join(tmpdir(), "spr2q-compare-"));
  await mkdir(join(dir, "HR"));
  for (const [i, name] of ["a", "b", "img_044"].entries()) {
    const image = fromRgbFloat(pictures(1, 136, i).data, 136, 136, 8);
    await writeFile(join(dir, "HR", `${name}.png`), encodePng(image));
  }
  const full = { label: "full", model: asModel(tinySwin(1)), bytes: 400 };
  const packed = { label: "2 bit", model: asModel(tinySwin(2)), bytes: 100 };
  const how = { tiling: "none", routing: "sampled", seed: 0 } as const;
  const { contenders, crops, images } = await compareOn(
    join(dir, "HR"),
    undefined,
    full,
    packed,
    how,
  );
  expect(images).toBe(3);
  expect(contenders.map(({ label, bytes }) => [label, bytes])).toEqual([
    ["bicubic", 0],
    ["full", 400],
    ["2 bit", 100],
  ]);
  expect(new Set(contenders.map(({ psnr }) => psnr)).size).toBe(3);
  expect(crops.map(({ name }) => name).slice(0, 4)).toEqual([
    "img_044: bicubic",
    "img_044: full precision",
    "img_044: original",
    "a: bicubic",
  ]);
  const original = decodePng(Buffer.from(crops[2].left.pngBase64, "base64"), "crop");
  expect([original.width, original.height]).toEqual([128, 128]);
  const [, x, y] = /at \((\d+), (\d+)\)/.exec(crops[2].caption)!.map(Number);
  const whole = fromRgbFloat(pictures(1, 136, 2).data, 136, 136, 8);
  expect([...original.data.subarray(0, 3)]).toEqual([
    ...whole.data.subarray((y * 136 + x) * 3, (y * 136 + x) * 3 + 3),
  ]);
});
