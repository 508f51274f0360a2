import { describe, expect, onTestFinished, test, vi } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { alphaPlane, fillTransparent, keepFlat } from "../../lib/infer/alpha.ts";
import { TileRunner } from "../../lib/infer/tiles.ts";
import { chooseTiling } from "../../lib/infer/budget.ts";
import { ShareReporter } from "../../lib/infer/progress.ts";
import type { UpscaleOptions } from "../../lib/infer/settings.ts";
import { Upscaler } from "../../lib/infer/upscaler.ts";
import { atOnce, type InParts, PIXELS_AT_ONCE } from "../../lib/io/pause.ts";
import { fromRgbFloat, type RasterImage, toRgbFloat } from "../../lib/io/raster.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { picture, tinyNetwork, writeTinyModel } from "../cli/tiny_model.ts";
import { refusal, refusalOf, temporaryFolder } from "../io/helpers.ts";

async function upscaler(): Promise<Upscaler> {
  return Upscaler.load(await writeTinyModel(temporaryFolder()));
}

async function upscale(image: RasterImage, options: UpscaleOptions = {}): Promise<RasterImage> {
  return (await upscaler()).run(image, options);
}

/** The oracle: the network's own forward pass on a graph, without plan, tiles or this class. */
function networkOutput(
  image: RasterImage,
  routing: "sampled" | "argmax",
  seed: number,
): Float32Array {
  const input = new Var(Float32Array.from(toRgbFloat(image)), [1, image.height, image.width, 3]);
  const router = new Router({ mode: routing, seed, tile: 0 });
  return tinyNetwork().forward(new Graph("running"), input, new FloatSites(), router).data;
}

/** Channel `c` of every pixel. */
function channel(image: RasterImage, c: number): number[] {
  return [...image.data].filter((_, i) => i % image.channels === c);
}

describe("colour and depth", () => {
  test.each([
    [8, "sampled", 0],
    [8, "argmax", 0],
    [16, "sampled", 9],
  ] as const)(
    "a %i-bit RGB image is what the network makes of it (%s, seed %i)",
    async (depth, routing, seed) => {
      const image = picture(13, 10, 3, depth);
      const wanted = fromRgbFloat(networkOutput(image, routing, seed), 26, 20, depth);
      expect(await upscale(image, { routing, seed })).toEqual(wanted);
      expect(new Set(wanted.data).size).toBeGreaterThan(50); // the oracle is no flat field
    },
  );

  test("a grey image stays grey: the mean of the three channels, at its depth", async () => {
    const image = picture(12, 9, 1, 16);
    const rgb = networkOutput(image, "sampled", 0);
    const result = await upscale(image);
    expect(result).toMatchObject({ width: 24, height: 18, channels: 1, depth: 16 });
    const off = [...result.data].map((value, i) => {
      const mean = (rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2]) / 3;
      return Math.abs(value - Math.min(Math.max(mean, 0), 1) * 65535);
    });
    expect(Math.max(...off)).toBeLessThanOrEqual(0.51);
  });

  test("the same seed gives the same pixels, another seed others", async () => {
    const one = await upscaler();
    const image = picture(16, 16);
    const [a, b] = [await one.run(image, { seed: 4 }), await one.run(image, { seed: 4 })];
    expect(a.data).toEqual(b.data);
    expect((await one.run(image, { seed: 5 })).data).not.toEqual(a.data);
  });

  test("two runs of one upscaler at once do not disturb each other", async () => {
    const one = await upscaler();
    const images = [picture(20, 12, 3, 8, 1), picture(20, 12, 3, 8, 2)];
    const together = await Promise.all(images.map((image) => one.run(image)));
    expect(together[0]).toEqual(await one.run(images[0]));
    expect(together[1]).toEqual(await one.run(images[1]));
  });
});

describe("transparency", () => {
  /** A picture whose left part is opaque, right part transparent, with a soft border. */
  function cutOut(): RasterImage {
    const image = picture(16, 12, 4);
    for (let i = 0; i < 16 * 12; i++) {
      image.data[4 * i + 3] = Math.max(0, Math.min(255, (9 - (i % 16)) * 100));
    }
    return image;
  }

  test.each([0, 77, 255])(
    "an alpha of %i everywhere stays that, and the colour is as without it",
    async (value) => {
      const image = picture(11, 9, 4);
      for (let i = 3; i < image.data.length; i += 4) image.data[i] = value;
      const opaque = {
        ...image,
        channels: 3 as const,
        data: image.data.filter((_, i) => i % 4 < 3),
      };
      const result = await upscale(image);
      expect(new Set(channel(result, 3))).toEqual(new Set([value]));
      expect(result.data.filter((_, i) => i % 4 < 3)).toEqual((await upscale(opaque)).data);
    },
  );

  test("the colour of fully transparent pixels changes nothing", async () => {
    const [a, b] = [cutOut(), cutOut()];
    for (let i = 0; i < b.data.length; i += 4) {
      if (b.data[i + 3] === 0) b.data.set([255, 0, 255], i);
    }
    const results = [await upscale(a), await upscale(b)];
    expect(b.data).not.toEqual(a.data);
    expect(results[0]).toEqual(results[1]);
  });

  test("flat opaque and transparent parts keep their alpha exactly", async () => {
    const result = await upscale(cutOut());
    for (let y = 0; y < 24; y++) {
      const row = channel(result, 3).slice(y * 32, y * 32 + 32);
      expect(new Set(row.slice(0, 10))).toEqual(new Set([255]));
      expect(new Set(row.slice(20))).toEqual(new Set([0]));
    }
  });

  test("alpha between flat parts is what the network makes of it as a grey image", async () => {
    const image = picture(12, 10, 2, 16);
    const alpha = { ...image, channels: 1 as const, data: Uint16Array.from(channel(image, 1)) };
    const result = await upscale(image);
    expect(result).toMatchObject({ channels: 2, depth: 16, width: 24, height: 20 });
    expect(channel(result, 1)).toEqual([...(await upscale(alpha)).data]);
  });

  test("transparent pixels take the alpha-weighted colour of what is visible, ring by ring", () => {
    const image: RasterImage = {
      width: 4,
      height: 1,
      channels: 2,
      depth: 8,
      data: Uint8Array.of(100, 30, 9, 0, 200, 10, 7, 0),
    };
    // 100 at weight 30 and 200 at weight 10 meet at 125.
    expect([...atOnce(fillTransparent(image)).data]).toEqual([100, 30, 125, 0, 200, 10, 200, 0]);
    const hidden = { ...image, data: Uint8Array.of(1, 0, 2, 0, 3, 0, 4, 0) };
    expect(atOnce(fillTransparent(hidden))).toEqual(hidden);
  });

  test("a large image is gone through in parts, between which the event loop may turn", () => {
    const side = 2 * Math.ceil(Math.sqrt(PIXELS_AT_ONCE));
    const image = picture(side, side, 4);
    for (let i = 0; i < side * side; i += 2) image.data[4 * i + 3] = 0;
    const plane = atOnce(alphaPlane(image));
    const yields = (work: InParts<unknown>): number => {
      let count = 0;
      while (!work.next().done) count++;
      return count;
    };
    const least = (side * side) / PIXELS_AT_ONCE;
    expect(yields(alphaPlane(image))).toBeGreaterThanOrEqual(least);
    expect(yields(fillTransparent(image))).toBeGreaterThanOrEqual(4 * least); // count, rings, spread, fill
    expect(yields(keepFlat(plane, new Uint8Array(4 * side * side), 2))).toBeGreaterThanOrEqual(
      least,
    );
  });

  test("only pixels whose neighbours all agree are held flat", () => {
    const plane: RasterImage = {
      width: 4,
      height: 2,
      channels: 1,
      depth: 8,
      data: Uint8Array.of(5, 5, 5, 9, 5, 5, 5, 5),
    };
    const upscaled = new Uint8Array(8 * 4).fill(1);
    atOnce(keepFlat(plane, upscaled, 2));
    for (let y = 0; y < 4; y++) {
      expect([...upscaled.subarray(y * 8, y * 8 + 8)]).toEqual([5, 5, 5, 5, 1, 1, 1, 1]);
    }
  });
});

describe("sizes", () => {
  test.each([
    [2, 2],
    [3, 20],
    [20, 2],
    [5, 3],
  ])(
    "an image of %ix%i pixels is mirrored up to half a window and cropped again",
    async (width, height) => {
      const image = picture(width, height);
      const result = await upscale(image);
      expect(result).toMatchObject({ width: 2 * width, height: 2 * height, channels: 3 });
      const least = Math.ceil(8 / 2);
      const [wide, high] = [Math.max(least, width), Math.max(least, height)];
      const at = (i: number, n: number) =>
        [...Array(n).keys(), ...[...Array(n).keys()].reverse()][i];
      const mirrored = picture(wide, high);
      for (let y = 0; y < high; y++) {
        for (let x = 0; x < wide; x++) {
          const from = 3 * (at(y, height) * width + at(x, width));
          mirrored.data.set(image.data.subarray(from, from + 3), 3 * (y * wide + x));
        }
      }
      const whole = await upscale(mirrored);
      for (let y = 0; y < 2 * height; y++) {
        const row = whole.data.subarray(6 * wide * y, 6 * wide * y + 6 * width);
        expect(result.data.subarray(6 * width * y, 6 * width * (y + 1))).toEqual(row);
      }
    },
  );

  test.each([
    [1, 9],
    [9, 1],
    [1, 1],
  ])("an image of %ix%i pixels is refused with ERR_IMAGE", async (width, height) => {
    const message = await refusalOf(upscale(picture(width, height)));
    expect(message).toContain("ERR_IMAGE");
    expect(message).toContain(`sides of at least 2 pixels, got ${width}x${height}`);
  });

  test("an image whose result would not fit is refused before any work", async () => {
    const image = { width: 8000, height: 8000, channels: 1 as const, depth: 8 as const };
    const data = new Uint8Array(8000 * 8000);
    const message = await refusalOf(upscale({ ...image, data }));
    expect(message).toMatch(/ERR_IMAGE.*at most 22369621 pixels at x2, got 8000x8000/);
  });

  test("samples that do not fit the size are refused with ERR_IMAGE", async () => {
    const image = { ...picture(8, 8), width: 9 };
    expect(await refusalOf(upscale(image))).toContain("ERR_IMAGE");
  });
});

describe("tiles", () => {
  test("auto runs up to 512x512 pixels whole and cuts larger images near 256", () => {
    expect(chooseTiling("auto", 512, 512)).toBe("none");
    expect(chooseTiling("auto", 1024, 256)).toBe("none");
    expect(chooseTiling("auto", 513, 512)).toBe(256);
    expect(chooseTiling("official", 4000, 4000)).toBe("official");
    expect(chooseTiling(64, 10, 10)).toBe(64);
  });

  test("a side given as tile is what the tiles are cut by", async () => {
    const one = await upscaler();
    const image = picture(45, 33);
    const float = { data: Float32Array.from(toRgbFloat(image)), width: 45, height: 33 };
    const tiles = new TileRunner(one.model);
    const wanted = await tiles.run(float, { tiling: 16, routing: "sampled", seed: 0 });
    const tiled = await one.run(image, { tile: 16 });
    expect(tiled).toEqual(fromRgbFloat(wanted.data, 90, 66, 8));
    expect(tiled.data).not.toEqual((await one.run(image)).data);
  });

  test("progress is told from 0 to 1, in between at most twenty times a second", async () => {
    const shares: number[] = [];
    const one = await upscaler();
    const began = performance.now();
    const onProgress = (share: number) => shares.push(share);
    await one.run(picture(120, 120, 4), { tile: 16, onProgress }); // 128 tiles, of milliseconds each
    const seconds = (performance.now() - began) / 1000;
    expect(shares[0]).toBe(0);
    expect(shares.at(-1)).toBe(1);
    expect(shares).toEqual([...new Set(shares)].sort((a, b) => a - b));
    expect(shares.slice(1, -1).length).toBeLessThanOrEqual(20 * seconds);
  });

  test("shares that come sooner than 50 ms after one that was told are left out", () => {
    let now = 1000;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
    onTestFinished(() => clock.mockRestore());
    const told: [number, number][] = [];
    const reporter = new ShareReporter(
      (share) => told.push([now, share]),
      (error) => expect(error).toBeUndefined(),
    );
    for (const [at, share] of [
      [1049, 0.1],
      [1050, 0.2],
      [1099, 0.3],
      [1101, 0.2], // no further than what was told
      [1102, 0.4],
      [1500, 1], // left to finish()
    ]) {
      now = at;
      reporter.update(share);
    }
    reporter.finish();
    expect(told).toEqual([
      [1000, 0],
      [1050, 0.2],
      [1102, 0.4],
      [1500, 1],
    ]);
  });

  test("within a single tile, progress comes from between the plan's steps", async () => {
    const shares: number[] = [];
    const one = await upscaler();
    await one.run(picture(480, 480), { tile: "none", onProgress: (share) => shares.push(share) });
    expect(shares.length).toBeGreaterThan(2);
  });

  test("what the progress callback throws ends the run", async () => {
    const one = await upscaler();
    const onProgress = (share: number) => {
      if (share > 0) throw new RangeError("no further");
    };
    await expect(one.run(picture(64, 64), { onProgress })).rejects.toThrow(RangeError);
    expect(one.stats()).toMatchObject({ queued: 0, running: 0, finished: 0 });
  });
});

describe("stopping and disposing", () => {
  test("a signal that has fired already is ERR_ABORTED", async () => {
    const message = await refusalOf(upscale(picture(16, 16), { signal: AbortSignal.abort() }));
    expect(message).toContain("ERR_ABORTED");
  });

  test("a signal that fires between two tiles is ERR_ABORTED and leaves the upscaler usable", async () => {
    const one = await upscaler();
    const controller = new AbortController();
    const { signal } = controller;
    const onProgress = () => controller.abort(new Error("enough"));
    const image = picture(40, 16);
    expect(await refusalOf(one.run(image, { tile: 16, signal, onProgress }))).toContain(
      "ERR_ABORTED",
    );
    expect((await one.run(image)).width).toBe(80);
  });

  test("after dispose() everything is ERR_DISPOSED, also what was running", async () => {
    const one = await upscaler();
    const running = refusalOf(one.run(picture(40, 40), { tile: 16 }));
    one.dispose();
    one.dispose();
    expect(await running).toContain("ERR_DISPOSED");
    expect(await refusalOf(one.run(picture(16, 16)))).toContain("ERR_DISPOSED");
    expect(refusal(() => one.scale)).toContain("ERR_DISPOSED");
  });

  test("Symbol.dispose disposes", async () => {
    const one = await upscaler();
    one[Symbol.dispose]();
    expect(refusal(() => one.bits)).toContain("ERR_DISPOSED");
  });
});
