/** Strips into files, tilings from a number of bytes, and the count of what plans hold. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { native } from "../../lib/binding.ts";
import { Budget } from "../../lib/infer/budget.ts";
import { layoutOf, TileRunner, type Tiling } from "../../lib/infer/tiles.ts";
import { type UpscaleOptions, Upscaler } from "../../lib/infer/upscaler.ts";
import { decodePng } from "../../lib/io/png.ts";
import { type RasterImage, toRgbFloat } from "../../lib/io/raster.ts";
import { picture, tinyNetwork } from "../cli/tiny_model.ts";
import { refusal, refusalOf, temporaryFolder } from "../io/helpers.ts";
import { headerChunk, SIGNATURE } from "../io/make_png.ts";
import { asModel, tinySwin } from "../tiny_net.ts";

const MIB = 2 ** 20;
const ROUTING = { routing: "sampled", seed: 0 } as const;

function tinyUpscaler(options: UpscaleOptions = {}): Upscaler {
  return new Upscaler(asModel(tinyNetwork()), options);
}

/** Bytes that runs of the tiny network need with a tiling, nothing else being held. */
function needed(image: RasterImage, tiling: Tiling): number {
  const budget = new Budget(new TileRunner(asModel(tinyNetwork())));
  return budget.fit(image, tiling, ROUTING, 0, Number.POSITIVE_INFINITY).bytes;
}

/** A picture with opaque, soft and hidden parts. */
function cutOut(width: number, height: number, channels: 2 | 4, depth: 8 | 16): RasterImage {
  const image = picture(width, height, channels, depth);
  const peak = depth === 8 ? 255 : 65535;
  for (let i = 0; i < width * height; i++) {
    const soft = (20 - (i % width)) / 10 + Math.floor(i / width) / 30;
    image.data[i * channels + channels - 1] = Math.round(peak * Math.min(1, Math.max(0, soft)));
  }
  return image;
}

describe("a file gets the pixels that run() gives", () => {
  const images: [string, RasterImage][] = [
    ["RGB, odd sides", picture(53, 37)],
    ["RGB of 16 bits", picture(40, 33, 3, 16)],
    ["grey", picture(31, 50, 1)],
    ["grey of 16 bits with alpha", cutOut(45, 41, 2, 16)],
    ["RGBA", cutOut(50, 35, 4, 8)],
    ["RGBA, opaque all over", { ...cutOut(20, 20, 4, 8), data: picture(20, 20, 4).data.fill(255) }],
    ["narrower than half a window", picture(3, 40)],
    ["two pixels", picture(2, 2)],
  ];
  test.each(images)("%s", async (_, image) => {
    const one = tinyUpscaler();
    const folder = temporaryFolder();
    for (const tile of ["none", 16, 17, "official"] as const) {
      const path = join(folder, `${tile}.png`);
      const shares: number[] = [];
      const options = { tile, seed: 3, onProgress: (share: number) => shares.push(share) };
      const saved = await one.save(image, path, options);
      const wanted = await one.run(image, { tile, seed: 3 });
      expect(saved).toEqual({ width: wanted.width, height: wanted.height, tiling: tile });
      expect(decodePng(readFileSync(path), path)).toEqual(wanted);
      expect(shares.at(-1)).toBe(1);
      expect(shares).toEqual([...shares].sort((a, b) => a - b));
    }
    expect(readdirSync(folder)).toHaveLength(4);
  });

  test("with a SwinIR, whose images are mirrored by a window more", async () => {
    const one = new Upscaler(asModel(tinySwin()));
    for (const [width, height, tile] of [
      [32, 16, 16],
      [37, 18, 13],
      [12, 7, "none"],
    ] as const) {
      const path = join(temporaryFolder(), "a.png");
      await one.save(picture(width, height), path, { tile });
      const wanted = await one.run(picture(width, height), { tile });
      expect(decodePng(readFileSync(path), path)).toEqual(wanted);
    }
  });
});

describe("a tiling from a number of bytes", () => {
  const image = picture(300, 200);
  const choose = (limit: number | undefined, choice: "auto" | Tiling = "auto") =>
    new Budget(new TileRunner(asModel(tinyNetwork()))).fit(image, choice, ROUTING, 0, limit);

  test("the whole image where it fits, else the largest tile that does", () => {
    const whole = needed(image, "none");
    expect(choose(whole)).toEqual({ tiling: "none", bytes: whole });
    let last = 300;
    for (const limit of [whole - 1, needed(image, 150), needed(image, 100), needed(image, 64)]) {
      const { tiling, bytes } = choose(limit);
      expect(bytes).toBeLessThanOrEqual(limit);
      expect(tiling).toBeLessThan(last);
      expect(needed(image, (tiling as number) + 8)).toBeGreaterThanOrEqual(bytes);
      last = tiling as number;
    }
    expect(last).toBe(64);
  });

  test("where the smallest tile does not fit, the refusal says needed, given, what to do", () => {
    const least = needed(image, 64);
    const message = refusal(() => choose(least - 1));
    expect(message).toMatch(/^ERR_OUT_OF_MEMORY: memory for 300x200 pixels in tiles of 64: /);
    expect(message).toContain(`expected ${Math.ceil(least / MIB)} MiB, got `);
    expect(message).toContain("raise the maximum");
  });

  test("a tile that was named is taken or refused, never changed", () => {
    expect(choose(needed(image, 100), 100).tiling).toBe(100);
    const message = refusal(() => choose(needed(image, 100) - 1, 100));
    expect(message).toMatch(/ERR_OUT_OF_MEMORY.*in tiles of 100.*smaller tile/);
    expect(refusal(() => choose(1, "none"))).toContain("as a whole");
    expect(refusal(() => choose(1, "official"))).toContain("by the official rule");
  });

  test("without a number of bytes the size decides, and what no machine has is refused", () => {
    expect(choose(undefined).tiling).toBe("none");
    const huge = { width: 2_000_000, height: 2_000_000, channels: 3, depth: 8 } as const;
    const budget = new Budget(new TileRunner(asModel(tinyNetwork())));
    const message = refusal(() => budget.fit(huge, "none", ROUTING, 0, undefined));
    expect(message).toMatch(/ERR_OUT_OF_MEMORY.*as a whole: expected .* GiB, got .* free/);
  });

  test("alpha, 16 bits and what is held beside count", () => {
    const bytes = (channels: 1 | 3 | 4, depth: 8 | 16) =>
      needed(picture(300, 200, channels, depth), 64);
    expect(bytes(4, 8)).toBeGreaterThan(bytes(3, 8));
    expect(bytes(3, 16)).toBeGreaterThan(bytes(3, 8));
    expect(bytes(1, 8)).toBeLessThan(bytes(3, 8));
    const budget = new Budget(new TileRunner(asModel(tinyNetwork())));
    expect(budget.fit(image, 64, ROUTING, 12_345, 2 ** 40).bytes).toBe(needed(image, 64) + 12_345);
  });

  test.each([
    ["MambaIRv2", tinyNetwork()],
    ["SwinIR", tinySwin()],
  ])("the arena told beforehand covers that of every plan of %s", (_, net) => {
    const runner = new TileRunner(asModel(net));
    const budget = new Budget(runner);
    for (const [width, height] of [
      [4, 5],
      [16, 16],
      [33, 70],
      [129, 128],
      [250, 90],
    ]) {
      const { rows, columns } = layoutOf(net, width, height, "none");
      const plan = runner.plan(columns[0].to, rows[0].to, ROUTING);
      const told = budget.arenaBytes(columns[0].to, rows[0].to, ROUTING);
      expect(told).toBeGreaterThanOrEqual(plan.arenaBytes);
      expect(told).toBeLessThan(1.2 * plan.arenaBytes + 65_536);
    }
  });
});

describe("runs within a number of bytes", () => {
  const image = picture(200, 150);

  test("a smaller maximum means smaller tiles and a smaller peak, in run() and save()", async () => {
    const one = tinyUpscaler();
    const path = join(temporaryFolder(), "a.png");
    const peaks: number[] = [];
    for (const tiling of ["none", 96, 64] as const) {
      // What save() holds beside is told by a refusal.
      const message = await refusalOf(one.save(image, path, { tile: tiling, maxMemory: 1 }));
      const maxMemory = Number(/expected (\d+) MiB/.exec(message)?.[1]) * MIB;
      native().peakBytes(true);
      const saved = await one.save(image, path, { maxMemory });
      peaks.push(native().peakBytes(false));
      expect(peaks.at(-1)).toBeLessThan(maxMemory);
      const wanted = await one.run(image, { tile: saved.tiling });
      expect(decodePng(readFileSync(path), path)).toEqual(wanted);
    }
    expect(peaks[0]).toBeGreaterThan(1.5 * peaks[1]);
    expect(peaks[1]).toBeGreaterThan(1.2 * peaks[2]);
    expect((await one.run(image, { maxMemory: 2 ** 40 })).data).toEqual(
      (await one.run(image, { tile: "none" })).data,
    );
  });

  test("a refusal comes before any plan runs and before anything is written", async () => {
    const one = tinyUpscaler({ maxMemory: 20 * MIB });
    const folder = temporaryFolder();
    native().peakBytes(true);
    const floor = native().peakBytes(false);
    for (const tile of ["auto", 64, "none"] as const) {
      expect(await refusalOf(one.run(image, { tile }))).toContain("ERR_OUT_OF_MEMORY");
      const saving = one.save(image, join(folder, "a.png"), { tile });
      expect(await refusalOf(saving)).toContain("ERR_OUT_OF_MEMORY");
    }
    expect(native().peakBytes(false)).toBe(floor);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("read() refuses by the header, before it decodes what is not even there", async () => {
    const path = join(temporaryFolder(), "a.png");
    const header = headerChunk({ width: 9000, height: 9000, bitDepth: 8, colorType: 2 });
    writeFileSync(path, Buffer.concat([SIGNATURE, header]));
    const one = tinyUpscaler({ maxMemory: 2 ** 30 });
    expect(await refusalOf(one.read(path))).toMatch(/ERR_OUT_OF_MEMORY.*9000x9000.*got 1024 MiB/);
    expect(await refusalOf(one.read(path, { maxMemory: 2 ** 40 }))).toContain("ERR_IMAGE");
  });

  test.each([0, -5, Number.NaN, "1G" as never])("a maximum of %s is ERR_ARGUMENT", async (bad) => {
    expect(refusal(() => tinyUpscaler({ maxMemory: bad }))).toContain("ERR_ARGUMENT");
    expect(await refusalOf(tinyUpscaler().run(image, { maxMemory: bad }))).toContain(
      "ERR_ARGUMENT: maxMemory: expected a number of bytes above 0",
    );
  });
});

describe("nothing is left behind", () => {
  test("where a signal fires between tiles or beforehand, or the upscaler is disposed", async () => {
    const folder = temporaryFolder();
    const path = join(folder, "a.png");
    writeFileSync(path, "what was there");
    const one = tinyUpscaler({ tile: 16 });
    const controller = new AbortController();
    const { signal } = controller;
    const onProgress = (share: number) => share > 0.5 && controller.abort();
    expect(await refusalOf(one.save(picture(60, 60), path, { signal, onProgress }))).toContain(
      "ERR_ABORTED",
    );
    expect(await refusalOf(one.save(picture(60, 60), path, { signal }))).toContain("ERR_ABORTED");
    const running = refusalOf(one.save(picture(60, 60), path));
    one.dispose();
    expect(await running).toContain("ERR_DISPOSED");
    expect(readFileSync(path, "utf8")).toBe("what was there");
    expect(readdirSync(folder)).toEqual(["a.png"]);
  });

  test("where the place cannot be written, which is ERR_IO", async () => {
    const folder = temporaryFolder();
    const one = tinyUpscaler();
    const saving = one.save(picture(20, 20), join(folder, "none", "a.png"));
    expect(await refusalOf(saving)).toMatch(/ERR_IO: could not write: .*it does not exist/);
    expect((await one.save(picture(20, 20), join(folder, "a.png"))).width).toBe(40);
    expect(readdirSync(folder)).toEqual(["a.png"]);
  });

  test.skipIf(!existsSync("/dev/full"))("where the disk is full", async () => {
    const saving = tinyUpscaler({ tile: 16 }).save(picture(90, 90), "/dev/full");
    expect(await refusalOf(saving)).toMatch(/ERR_IO: could not write: .*the disk is full/);
  });
});

describe("the count of what plans hold", () => {
  test("covers the arena of a run and starts anew on demand", async () => {
    const runner = new TileRunner(asModel(tinyNetwork()));
    const plan = runner.plan(96, 96, ROUTING);
    const input = new Float32Array(96 * 96 * 3).fill(0.5);
    await plan.run(input);
    const scratch = native().peakBytes(true) && native().peakBytes(false);
    await plan.run(input);
    const one = native().peakBytes(true) - scratch;
    expect(one).toBeGreaterThanOrEqual(plan.arenaBytes);
    expect(native().peakBytes(false)).toBeLessThan(plan.arenaBytes + scratch);
  });

  test("runs of one plan may overlap, and the number of a tile changes its noise", async () => {
    const plan = new TileRunner(asModel(tinyNetwork())).plan(40, 40, ROUTING);
    const input = toRgbFloat(picture(40, 40)) as Float32Array<ArrayBuffer>;
    const [a, b] = await Promise.all([
      plan.run(input),
      plan.run(input, undefined, { noiseTile: 9 }),
    ]);
    expect(a).not.toEqual(b);
    expect(b).toEqual(await plan.run(input, undefined, { noiseTile: 9 }));
  });
});
