/**
 * JPEG, WebP and AVIF through the optional package sharp, where it is there, where it is not, and
 * where it is broken. Those that need it are skipped with a reason where it is not installed.
 */
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { command } from "../../lib/cli/commands/upscale.ts";
import { imageKind, kindOfName } from "../../lib/io/image_kind.ts";
import { decodeImage, outlineBytes, outlineImage, readImage } from "../../lib/io/pictures.ts";
import { encodePng, type RasterImage } from "../../lib/io/png.ts";
import { encodeWithSharp } from "../../lib/io/sharp.ts";
import { picture, runCommand, writeTinyModel } from "../cli/tiny_model.ts";
import { refusalOf, temporaryFolder } from "./helpers.ts";

type Sharp = typeof import("sharp").default;
const sharp: Sharp | null = await import("sharp").then((m) => m.default).catch(() => null);
if (!sharp) console.log("skipped: sharp is not installed (npm install sharp)");

/** Greatest difference of two images' samples. */
function farthest(a: RasterImage, b: RasterImage): number {
  expect([a.width, a.height, a.channels, a.depth]).toEqual([
    b.width,
    b.height,
    b.channels,
    b.depth,
  ]);
  return a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i])), 0);
}

/** Low waves, so that lossy kinds keep them well. */
function smooth(width: number, height: number, channels: 1 | 2 | 3 | 4): RasterImage {
  const data = new Uint8Array(width * height * channels);
  for (let i = 0; i < data.length; i++) {
    const [c, x] = [i % channels, Math.floor(i / channels) % width];
    const y = Math.floor(i / channels / width);
    data[i] = 128 + 60 * Math.sin(x / 9 + c) * Math.cos(y / 7);
  }
  return { width, height, channels, depth: 8, data };
}

test("a file's kind is told by its first bytes, and by its name", () => {
  const ascii = (text: string) => imageKind(Buffer.from(text, "latin1"));
  expect(ascii("\x89PNG\r\n\x1a\n")).toBe("png");
  expect(ascii("\xff\xd8\xff\xe0")).toBe("jpeg");
  expect(ascii("RIFF....WEBPVP8 ")).toBe("webp");
  expect(ascii("\0\0\0\x1cftypmif1\0\0\0\0mif1avif")).toBe("avif");
  expect(ascii("\0\0\0\x1cftypheic\0\0\0\0mif1heic")).toBeNull();
  expect(ascii("RIFF....WAVEfmt ")).toBeNull();
  expect(ascii("")).toBeNull();
  expect(["a.JPG", "b.jpeg", "c.webp", "d.avif", "e.png"].map(kindOfName)).toEqual([
    "jpeg",
    "jpeg",
    "webp",
    "avif",
    "png",
  ]);
  expect([kindOfName("png"), kindOfName("a.gif")]).toEqual([null, null]);
});

describe.skipIf(!sharp)("with sharp", () => {
  test.each([
    ["jpeg", 3],
    ["jpeg", 1],
    ["webp", 3],
    ["webp", 4],
    ["avif", 3],
    ["avif", 4],
  ] as const)("%s of %d channels comes back nearly as it was", async (kind, channels) => {
    const image = smooth(60, 40, channels);
    const bytes = await encodeWithSharp(image, kind, 95);
    expect(imageKind(bytes)).toBe(kind);
    const shape = { width: 60, height: 40, channels, depth: 8 };
    expect(await outlineBytes(bytes, "a")).toEqual(shape);
    const path = join(temporaryFolder(), "picture.bin"); // its name does not matter
    writeFileSync(path, bytes);
    expect(await outlineImage(path)).toEqual(shape);
    expect(farthest(await readImage(path), image)).toBeLessThan(16);
  });

  test("a photograph taken sideways comes out upright", async () => {
    const image = smooth(60, 40, 3);
    const bytes = await sharp!(image.data as Uint8Array, {
      raw: { width: 60, height: 40, channels: 3 },
    })
      .withMetadata({ orientation: 6 })
      .jpeg({ quality: 95 })
      .toBuffer();
    expect(await outlineBytes(bytes, "a")).toMatchObject({ width: 40, height: 60 });
    const upright = await decodeImage(bytes, "a");
    expect([upright.width, upright.height]).toEqual([40, 60]);
    // Turned clockwise: the first column of the file, read upwards, is the first row.
    const from = image.data.slice(39 * 60 * 3, 39 * 60 * 3 + 3);
    for (let c = 0; c < 3; c++) expect(Math.abs(upright.data[c] - from[c])).toBeLessThan(16);
  });

  test("colours of another profile become sRGB", async () => {
    const red = { create: { width: 8, height: 8, channels: 3 as const, background: "#c04020" } };
    const bytes = await sharp!(red).withIccProfile("p3").jpeg({ quality: 100 }).toBuffer();
    const { data } = await decodeImage(bytes, "a");
    for (const [c, value] of [0xc0, 0x40, 0x20].entries()) {
      expect(Math.abs(data[c] - value)).toBeLessThan(4);
    }
  });

  test("damaged, cut short, animated or larger than the limit: refused, by the header where it says", async () => {
    const jpeg = await encodeWithSharp(smooth(60, 40, 3), "jpeg", 90);
    expect(await refusalOf(decodeImage(jpeg.slice(0, 400), "a"))).toMatch(
      /ERR_IMAGE: a: damaged JPEG/,
    );
    expect(await refusalOf(outlineBytes(jpeg.slice(0, 40), "a"))).toContain("ERR_IMAGE");
    const limit = { maxSamples: 60 * 40 * 3 - 1 };
    expect(await refusalOf(decodeImage(jpeg, "a", limit))).toMatch(/ERR_IMAGE.*60x40/);
    const frames = smooth(16, 32, 3);
    const raw = { width: 16, height: 32, channels: 3 as const, pageHeight: 16 };
    const webp = await sharp!(frames.data as Uint8Array, { raw })
      .webp({ delay: [10, 10] })
      .toBuffer();
    expect(await refusalOf(decodeImage(webp, "a"))).toMatch(
      /ERR_IMAGE.*one picture.*animation of 2/,
    );
  });

  test("nothing is lost in silence: 16 bits and alpha are refused where the kind holds none", async () => {
    expect(await refusalOf(encodeWithSharp(picture(8, 8, 3, 16), "webp", 90))).toMatch(
      /ERR_IMAGE.*8 bits/,
    );
    expect(await refusalOf(encodeWithSharp(picture(8, 8, 4), "jpeg", 90))).toMatch(
      /ERR_IMAGE.*no alpha/,
    );
  });

  test("upscale reads a folder of all kinds and writes PNG, or the kind it is told", async () => {
    const folder = temporaryFolder();
    const model = await writeTinyModel(folder);
    const [input, out] = [join(folder, "in"), join(folder, "out")];
    mkdirSync(input);
    writeFileSync(join(input, "a.png"), encodePng(smooth(20, 16, 3)));
    writeFileSync(join(input, "b.jpg"), await encodeWithSharp(smooth(20, 16, 3), "jpeg", 95));
    writeFileSync(join(input, "c.webp"), await encodeWithSharp(smooth(20, 16, 4), "webp", 95));
    writeFileSync(join(input, "d.avif"), await encodeWithSharp(smooth(20, 16, 3), "avif", 95));
    const run = await runCommand(command, [input, "-o", out, "--model", model, "--json"]);
    expect(run.code).toBe(0);
    const names = JSON.parse(run.out).images.map((image: { out: string }) => image.out);
    expect(names).toEqual(["a.png", "b.png", "c.png", "d.png"].map((name) => join(out, name)));
    for (const name of names)
      expect(await outlineImage(name)).toMatchObject({ width: 40, height: 32 });
    const webp = join(folder, "large.webp");
    const one = await runCommand(command, [join(input, "b.jpg"), "-o", webp, "--model", model]);
    expect(one.code).toBe(0);
    expect(imageKind(readFileSync(webp))).toBe("webp");
    expect(await outlineImage(webp)).toMatchObject({ width: 40, height: 32 });
    const alpha = await runCommand(command, [
      join(input, "c.webp"),
      "-o",
      join(folder, "x.jpg"),
      "--model",
      model,
    ]);
    expect([alpha.code, alpha.err]).toEqual([1, expect.stringContaining("no alpha")]);
  });

  test("two images that would become one file are named before anything is written", async () => {
    const folder = temporaryFolder();
    const model = await writeTinyModel(folder);
    const input = join(folder, "in");
    mkdirSync(input);
    writeFileSync(join(input, "a.png"), encodePng(smooth(20, 16, 3)));
    writeFileSync(join(input, "a.jpg"), await encodeWithSharp(smooth(20, 16, 3), "jpeg", 95));
    const { code, err } = await runCommand(command, [
      input,
      "-o",
      join(folder, "out"),
      "--model",
      model,
    ]);
    expect([code, err]).toEqual([2, expect.stringMatching(/ERR_USAGE.*a\.jpg and .*a\.png/s)]);
  });
});

describe("without sharp", () => {
  /** Runs the program where importing sharp fails with this code. */
  async function program(code: string, ...words: string[]) {
    const hook = `export async function resolve(name, context, next) {
      if (name === "sharp") throw Object.assign(new Error("no such thing"), { code: ${JSON.stringify(code)} });
      return next(name, context);
    }`;
    const asUrl = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`;
    const register = asUrl(
      `import { register } from "node:module"; register(${JSON.stringify(asUrl(hook))});`,
    );
    const main = join(packageRoot(), "dist", "lib", "cli", "main.js");
    const done = promisify(execFile)(process.execPath, ["--import", register, main, ...words]);
    return done.then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (error) => ({
        code: error.code as number,
        stdout: error.stdout,
        stderr: error.stderr as string,
      }),
    );
  }

  test("a JPEG is refused with what to add, and a PNG is enlarged as ever", async () => {
    const folder = temporaryFolder();
    const model = await writeTinyModel(folder);
    const [jpeg, png] = [join(folder, "a.jpg"), join(folder, "a.png")];
    writeFileSync(jpeg, Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 16]));
    writeFileSync(png, encodePng(smooth(20, 16, 3)));
    const out = join(folder, "out.png");
    const upscale = (code: string, file: string, to = out) =>
      program(code, "upscale", file, "-o", to, "--model", model);
    const refused = await upscale("ERR_MODULE_NOT_FOUND", jpeg);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(
      /ERR_NEED_SHARP: .*a\.jpg \(JPEG\).*sharp >=0\.33.*got none.*npm install sharp/,
    );
    const broken = await upscale("ERR_DLOPEN_FAILED", jpeg);
    expect(broken.stderr).toMatch(/ERR_NEED_SHARP: .*does not load \(no such thing\)/);
    const written = await upscale("ERR_MODULE_NOT_FOUND", png, join(folder, "x.webp"));
    expect(written.stderr).toMatch(/ERR_NEED_SHARP: writing WebP/);
    expect((await upscale("ERR_MODULE_NOT_FOUND", png)).code).toBe(0);
    expect(await outlineImage(out)).toMatchObject({ width: 40, height: 32 });
  });

  test("package.json names sharp as a peer that may be missing", () => {
    const root = pathToFileURL(join(packageRoot(), "package.json"));
    const manifest = JSON.parse(readFileSync(root, "utf8"));
    expect(manifest.peerDependencies).toEqual({ sharp: ">=0.33" });
    expect(manifest.peerDependenciesMeta).toEqual({ sharp: { optional: true } });
    expect(manifest.dependencies.sharp).toBeUndefined();
  });

  test("a kind that is none of the four is told", () => {
    return expect(refusalOf(decodeImage(Buffer.from("GIF89a"), "a.gif"))).resolves.toMatch(
      /ERR_IMAGE: a\.gif: expected a PNG, JPEG, WebP or AVIF image, got another/,
    );
  });
});
