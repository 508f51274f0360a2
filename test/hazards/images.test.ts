/** Kinds of pictures that other upscalers lose something of, and seams, through the program itself. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { decodePng, type RasterImage } from "../../lib/io/png.ts";
import { makePng, type PngRecipe } from "../io/make_png.ts";

const home = process.env.SPR2Q_PACKAGE ?? packageRoot();
const model = join(import.meta.dirname, "..", "fixtures", "tiny-x2.safetensors");
const ramp = (peak: number) => (x: number, y: number, c: number) => (x * 7 + y * 3 + c * 31) % peak;
let folder = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "spr2q-images-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function upscale(args: readonly string[]): Promise<void> {
  const program = join(home, "dist", "lib", "cli", "main.js");
  await promisify(execFile)(process.execPath, [program, "upscale", ...args, "--quiet"]);
}

const read = async (name: string): Promise<RasterImage> =>
  decodePng(await readFile(join(folder, "large", name)), name);

test("every kind of PNG keeps its channels and depth, at any size from 2x2 on", async () => {
  const kinds: Record<string, PngRecipe> = {
    "grey-1.png": { width: 17, height: 9, bitDepth: 1, colorType: 0, sample: ramp(2) },
    "grey-16.png": { width: 16, height: 16, bitDepth: 16, colorType: 0, sample: ramp(65536) },
    "grey-alpha.png": { width: 5, height: 31, bitDepth: 8, colorType: 4, sample: ramp(256) },
    "palette.png": {
      ...{ width: 33, height: 21, bitDepth: 2, colorType: 3, sample: ramp(4) },
      palette: [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255],
    },
    "palette-clear.png": {
      ...{ width: 12, height: 12, bitDepth: 4, colorType: 3, sample: ramp(4) },
      palette: [9, 9, 9, 99, 99, 99, 200, 200, 200, 255, 0, 255],
      transparency: Uint8Array.of(255, 0, 255, 128),
    },
    "rgb-16.png": { width: 23, height: 11, bitDepth: 16, colorType: 2, sample: ramp(65536) },
    "rgba-16.png": { width: 13, height: 14, bitDepth: 16, colorType: 6, sample: ramp(65536) },
    "rgb-interlaced.png": {
      ...{ width: 19, height: 7, bitDepth: 8, colorType: 2, sample: ramp(256) },
      interlaced: true,
    },
    "tiny.png": { width: 2, height: 2, bitDepth: 8, colorType: 2, sample: ramp(256) },
    "narrow.png": { width: 2, height: 70, bitDepth: 8, colorType: 2, sample: ramp(256) },
  };
  await mkdir(join(folder, "small"));
  for (const [name, recipe] of Object.entries(kinds)) {
    await writeFile(join(folder, "small", name), makePng(recipe));
  }
  await upscale([join(folder, "small"), "-o", join(folder, "large"), "--model", model]);
  for (const [name, recipe] of Object.entries(kinds)) {
    const small = decodePng(await readFile(join(folder, "small", name)), name);
    const large = await read(name);
    expect(large, name).toMatchObject({
      width: 2 * recipe.width,
      height: 2 * recipe.height,
      channels: small.channels,
      depth: recipe.bitDepth === 16 ? 16 : 8,
    });
    const mean = ({ data }: RasterImage): number =>
      (data as Uint8Array).reduce((sum, value) => sum + value, 0) / data.length;
    const peak = large.depth === 16 ? 65535 : 255;
    expect(Math.abs(mean(large) - mean(small)) / peak, name).toBeLessThan(0.12);
  }
});

test("tiles leave no seam: across their borders pixels differ as they do in the whole image", async () => {
  const picture = join(home, "assets", "images", "harbour.png"); // 192 x 192
  await mkdir(join(folder, "large"), { recursive: true });
  const cut = (tile: string) => ["--tile", tile, "--model", model];
  await upscale([picture, "-o", join(folder, "large", "whole.png"), ...cut("none")]);
  await upscale([picture, "-o", join(folder, "large", "tiled.png"), ...cut("64")]);
  const [whole, tiled] = [await read("whole.png"), await read("tiled.png")];
  const { width, height } = whole;
  /** Mean step from column x-1 to column x. */
  const step = ({ data }: RasterImage, x: number): number => {
    let sum = 0;
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < 3; c++) {
        const at = (y * width + x) * 3 + c;
        sum += Math.abs(data[at] - data[at - 3]);
      }
    }
    return sum / height / 3;
  };
  const excess = [128, 256].map((x) => step(tiled, x) - step(whole, x));
  console.log(`steps across seams beyond the whole image's: ${excess.map((e) => e.toFixed(3))}`);
  for (const more of excess) expect(more).toBeLessThan(0.25); // grey levels of 255
  const error = tiled.data.reduce((sum, value, i) => sum + (value - whole.data[i]) ** 2, 0);
  const psnr = 10 * Math.log10(255 ** 2 / (error / tiled.data.length));
  console.log(`tiled against whole: ${psnr.toFixed(1)} dB`);
  expect(psnr).toBeGreaterThan(38); // routing and scan see a tile, not the image: not equal
});
