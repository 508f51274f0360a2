import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { command } from "../../lib/cli/commands/upscale.ts";
import { parseTile } from "../../lib/cli/run_options.ts";
import { planJobs } from "../../lib/cli/upscale_jobs.ts";
import { Upscaler } from "../../lib/infer/upscaler.ts";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import type { RasterImage } from "../../lib/io/raster.ts";
import { refusal, refusalOf, temporaryFolder } from "../io/helpers.ts";
import { headerChunk, SIGNATURE } from "../io/make_png.ts";
import { picture, runCommand, writeTinyModel } from "./tiny_model.ts";

describe("the command", () => {
  async function place(...images: [string, RasterImage | Uint8Array][]) {
    const folder = temporaryFolder();
    const model = await writeTinyModel(folder);
    const input = join(folder, "in");
    mkdirSync(input);
    for (const [name, image] of images) {
      const bytes = image instanceof Uint8Array ? image : encodePng(image);
      writeFileSync(join(input, name), bytes);
    }
    return { folder, model, input, out: join(folder, "out") };
  }

  test("one PNG becomes the same bytes as Upscaler gives, under the given name", async () => {
    const image = picture(14, 11, 2, 16);
    const { model, input, out } = await place(["a.png", image]);
    const target = join(out, "deep", "big.png");
    const source = join(input, "a.png");
    const { code, out: text } = await runCommand(command, [
      source,
      "-o",
      target,
      "--model",
      model,
      "--seed",
      "3",
    ]);
    expect(code).toBe(0);
    expect(text).toContain("28x22");
    const written = readFileSync(target);
    expect(decodePng(written, "result")).toEqual(
      await (await Upscaler.load(model)).run(image, { seed: 3 }),
    );
    expect(readdirSync(join(out, "deep"))).toEqual(["big.png"]);
  });

  test("a folder's images keep their names, and --json lists them", async () => {
    const { model, input, out } = await place(
      ["b.png", picture(9, 8)],
      ["a.png", picture(8, 10, 1)],
    );
    writeFileSync(join(input, "notes.txt"), "no image");
    const run = await runCommand(command, [input, "-o", out, "--model", model, "--json"]);
    expect(run.code).toBe(0);
    const result = JSON.parse(run.out);
    expect(result).toMatchObject({
      model,
      scale: 2,
      bits: 32,
      tile: "auto",
      routing: "sampled",
      seed: 0,
    });
    expect(result.images).toEqual([
      {
        in: join(input, "a.png"),
        out: join(out, "a.png"),
        width: 16,
        height: 20,
        tile: "none",
        seconds: expect.any(Number),
      },
      {
        in: join(input, "b.png"),
        out: join(out, "b.png"),
        width: 18,
        height: 16,
        tile: "none",
        seconds: expect.any(Number),
      },
    ]);
    expect(readdirSync(out).sort()).toEqual(["a.png", "b.png"]);
  });

  test("a damaged image in a folder is named before anything is written", async () => {
    const broken = Buffer.concat([
      SIGNATURE,
      headerChunk({ width: 8, height: 8, bitDepth: 8, colorType: 2 }),
    ]);
    const { model, input, out } = await place(["a.png", picture(8, 8)], ["z.png", broken]);
    const { code, err } = await runCommand(command, [input, "-o", out, "--model", model]);
    expect(code).toBe(1);
    expect(err).toContain("ERR_IMAGE");
    expect(err).toContain("z.png");
    expect(existsSync(out)).toBe(false);
  });

  test("an image of one row is named with ERR_IMAGE and leaves nothing behind", async () => {
    const { model, input, out } = await place(["thin.png", picture(9, 1)]);
    const run = await runCommand(command, [
      join(input, "thin.png"),
      "-o",
      out,
      "--model",
      model,
      "--json",
    ]);
    expect(run.code).toBe(1);
    expect(JSON.parse(run.out).error).toMatchObject({
      code: "ERR_IMAGE",
      message: expect.stringContaining("thin.png"),
    });
    expect(existsSync(out)).toBe(false);
  });

  test("Ctrl-C during a folder ends with 130 and only whole files", async () => {
    const { model, input, out } = await place(["a.png", picture(8, 8)], ["b.png", picture(64, 64)]);
    const controller = new AbortController();
    const argv = [input, "-o", out, "--model", model, "--tile", "16"];
    const { code, err } = await runCommand(command, argv, controller.signal, (text) => {
      if (text.includes("b.png")) controller.abort();
    });
    expect([code, err.includes("ERR_ABORTED")]).toEqual([130, true]);
    expect(readdirSync(out)).toEqual(["a.png"]);
    expect(decodePng(readFileSync(join(out, "a.png")), "a")).toMatchObject({
      width: 16,
      height: 16,
    });
  });

  test("a file never replaces itself, not even through a link to its folder", async () => {
    const { folder, model, input } = await place(["a.png", picture(8, 8)]);
    const before = readFileSync(join(input, "a.png"));
    const link = join(folder, "link");
    symlinkSync(input, link);
    const { code, err } = await runCommand(command, [input, "-o", link, "--model", model]);
    expect(code).toBe(2);
    expect(err).toContain("ERR_USAGE");
    expect(readFileSync(join(input, "a.png"))).toEqual(before);
  });

  test("a folder cannot become one file, a missing input is ERR_IO, an empty folder ERR_DATA", async () => {
    const { folder, input } = await place();
    expect(await refusalOf(planJobs(input, join(folder, "out")))).toContain("ERR_DATA");
    writeFileSync(join(input, "a.png"), encodePng(picture(4, 4)));
    expect(await refusalOf(planJobs(input, "x.png"))).toContain("ERR_USAGE");
    expect(await refusalOf(planJobs(join(folder, "none.png"), "x.png"))).toContain("ERR_IO");
  });

  test("a model that is no model is refused and nothing is made", async () => {
    const { folder, input, out } = await place(["a.png", picture(8, 8)]);
    const fake = join(folder, "fake.pth");
    writeFileSync(fake, "hello");
    const { code, err } = await runCommand(command, [input, "-o", out, "--model", fake]);
    expect(code).toBe(1);
    expect(err).toContain("ERR_CHECKPOINT");
    expect(existsSync(out)).toBe(false);
  });

  test("--max-memory chooses the tiles, and --json tells what was held", async () => {
    const image = picture(200, 100);
    const { model, input, out } = await place(["a.png", image]);
    const line = [join(input, "a.png"), "-o", join(out, "b.png"), "--model", model, "--json"];
    const results: { peakBytes: number; maxMemory: number; images: { tile: string | number }[] }[] =
      [];
    for (const size of ["1G", "72MiB"]) {
      const run = await runCommand(command, [...line, "--max-memory", size]);
      expect(run.code).toBe(0);
      results.push(JSON.parse(run.out));
      const { tile } = results.at(-1)!.images[0] as { tile: "none" | number };
      const wanted = await (await Upscaler.load(model)).run(image, { tile });
      expect(decodePng(readFileSync(join(out, "b.png")), "b")).toEqual(wanted);
    }
    const [large, small] = results;
    expect([large.maxMemory, small.maxMemory]).toEqual([2 ** 30, 72 * 2 ** 20]);
    expect(large.images[0].tile).toBe("none");
    expect(small.images[0].tile).toBeGreaterThanOrEqual(64);
    expect(small.images[0].tile).toBeLessThan(200);
    expect(small.peakBytes).toBeLessThan(large.peakBytes);
  });

  test("what does not fit --max-memory is refused before the output's folder is made", async () => {
    const { model, input, out } = await place(["a.png", picture(200, 100)]);
    const line = [input, "-o", out, "--model", model];
    for (const more of [
      ["--max-memory", "20M"],
      ["--max-memory", "40M", "--tile", "128"],
    ]) {
      const { code, err } = await runCommand(command, [...line, ...more]);
      expect(code).toBe(1);
      expect(err).toMatch(/ERR_OUT_OF_MEMORY.*200x100/s);
      expect(existsSync(out)).toBe(false);
    }
    const { code, err } = await runCommand(command, [...line, "--max-memory", "plenty"]);
    expect([code, /ERR_USAGE.*--max-memory.*512M/s.test(err)]).toEqual([2, true]);
  });

  test("--tile takes a word or a side and refuses the rest", () => {
    expect([parseTile("auto"), parseTile("none"), parseTile("64")]).toEqual(["auto", "none", 64]);
    for (const bad of ["15", "-1", "big", "1.5", ""]) {
      expect(refusal(() => parseTile(bad))).toContain("ERR_USAGE");
    }
  });
});
