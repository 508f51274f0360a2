/** Runs of one upscaler: their order, what stops them, what they lend and report. */
import { createHash } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { native, packageRoot } from "../../lib/binding.ts";
import type { RunMessage } from "../../lib/infer/calls.ts";
import { Upscaler } from "../../lib/infer/upscaler.ts";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import type { RasterImage } from "../../lib/io/raster.ts";
import { quantize } from "../../lib/methods/quantize.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { picture, tinyNetwork, writePackedModel, writeTinyModel } from "../cli/tiny_model.ts";
import { refusal, refusalOf, temporaryFolder } from "../io/helpers.ts";
import { asModel } from "../tiny_net.ts";

const upscaler = async (): Promise<Upscaler> =>
  Upscaler.load(await writeTinyModel(temporaryFolder()));

/** The rows of an image in parts of `sizes` rows, over and over. */
function* parts(image: RasterImage, ...sizes: number[]): Generator<RasterImage["data"]> {
  const row = image.width * image.channels;
  for (let y = 0, i = 0; y < image.height; i++) {
    const to = Math.min(image.height, y + sizes[i % sizes.length]);
    yield image.data.slice(y * row, to * row);
    y = to;
  }
}

describe("the queue", () => {
  test("runs end in the order in which they were asked for", async () => {
    using one = await upscaler();
    const order: number[] = [];
    const sides = [90, 20, 60, 20];
    const all = sides.map((side, i) => one.run(picture(side, side)).then(() => order.push(i)));
    expect(one.stats()).toMatchObject({ queued: 3, running: 1 });
    await Promise.all(all);
    expect(order).toEqual([0, 1, 2, 3]);
    expect(one.stats()).toMatchObject({ queued: 0, running: 0, finished: 4 });
  });

  test("a run that waits leaves the queue when its signal fires, and nobody behind it waits", async () => {
    using one = await upscaler();
    const first = one.run(picture(200, 200));
    const controller = new AbortController();
    const second = refusalOf(one.run(picture(20, 20), { signal: controller.signal }));
    const third = one.run(picture(20, 20));
    controller.abort();
    expect(await second).toContain("ERR_ABORTED");
    expect(one.stats()).toMatchObject({ queued: 1, running: 1 });
    await Promise.all([first, third]);
  });

  test("an abort in the middle of a tile rejects while the tile is still at work", async () => {
    using one = await upscaler();
    const controller = new AbortController();
    const onProgress = (share: number) => {
      if (share > 0) controller.abort("too slow");
    };
    const { signal } = controller;
    const run = one.run(picture(480, 480), { tile: "none", signal, onProgress });
    await expect(run).rejects.toMatchObject({ code: "ERR_ABORTED", cause: "too slow" });
    expect((await one.run(picture(16, 16))).width).toBe(32);
  });

  test("await using waits for what was asked for", async () => {
    const one = await upscaler();
    const runs = [one.run(picture(60, 60)), one.run(picture(20, 20))];
    await one[Symbol.asyncDispose]();
    expect((await Promise.all(runs)).map(({ width }) => width)).toEqual([120, 40]);
    expect(refusal(() => one.stats())).toContain("ERR_DISPOSED");
  });

  test("dispose() rejects what waits, too, and frees the plans", async () => {
    const before = native().constantBytes();
    const one = await upscaler();
    const runs = [20, 21, 22].map((side) => refusalOf(one.run(picture(side, side))));
    one.dispose();
    for (const message of await Promise.all(runs)) expect(message).toContain("ERR_DISPOSED");
    const other = await upscaler();
    await other.run(picture(16, 16));
    expect(native().constantBytes()).toBeGreaterThan(before);
    other.dispose();
    await new Promise((resolve) => setTimeout(resolve, 50)); // threads may end their steps
    expect(native().constantBytes()).toBeLessThanOrEqual(before);
  });
});

describe("what callers lend", () => {
  test("the result goes into `out`, also into shared memory", async () => {
    using one = await upscaler();
    const image = picture(20, 12);
    const wanted = await one.run(image);
    const out = new Uint8Array(40 * 24 * 3);
    const result = await one.run(image, { out });
    expect(result.data).toBe(out);
    expect(result).toEqual(wanted);
    const shared = new Uint8Array(new SharedArrayBuffer(40 * 24 * 3));
    await one.run({ ...image, data: shared.subarray(0, 720) as Uint8Array }, { out: shared });
    expect(shared.some((value) => value > 0)).toBe(true);
  });

  test("an `out` of another size or depth is ERR_SHAPE before anything runs", async () => {
    using one = await upscaler();
    const image = picture(20, 12);
    for (const out of [new Uint8Array(5), new Uint16Array(40 * 24 * 3)]) {
      const message = await refusalOf(one.run(image, { out }));
      expect(message).toContain("ERR_SHAPE");
      expect(message).toContain("Uint8Array of 2880 samples (40x24x3)");
    }
  });

  test("arrays that can lose their memory are refused", async () => {
    using one = await upscaler();
    const Growable = ArrayBuffer as new (n: number, o: object) => ArrayBuffer;
    const data = new Uint8Array(new Growable(16 * 16 * 3, { maxByteLength: 4096 }));
    const image = { ...picture(16, 16), data };
    expect(await refusalOf(one.run(image))).toContain("fixed length");
  });
});

describe("streaming", () => {
  test.each([1, 3] as const)("bands joined are run()'s image (%i channels)", async (channels) => {
    using one = await upscaler();
    const image = picture(50, 61, channels, channels === 1 ? 16 : 8);
    const wanted = await one.run(image, { tile: 16 });
    for (const source of [image, { ...image, data: undefined, rows: parts(image, 1, 7, 2) }]) {
      const joined: number[] = [];
      let y = 0;
      for await (const band of one.stream(source as RasterImage, { tile: 16 })) {
        expect(band.y).toBe(y);
        y += band.height;
        joined.push(...band.data);
      }
      expect(y).toBe(122);
      expect(joined).toEqual([...wanted.data]);
    }
  });

  test("rows with alpha, and rows in tiles smaller than a window, are run()'s image too", async () => {
    using one = await upscaler();
    for (const [image, tile] of [
      [picture(24, 30, 4), 16],
      [picture(9, 41), 6],
      [picture(5, 3), 16],
    ] as const) {
      const wanted = await one.run(image, { tile });
      const { data: _, ...shape } = image;
      const png: Uint8Array[] = [];
      for await (const bytes of one.png({ ...shape, rows: parts(image, 2) }, { tile })) {
        png.push(bytes);
      }
      expect(decodePng(Buffer.concat(png), "streamed")).toEqual(wanted);
    }
  });

  test("rows torn, missing or too many are ERR_SHAPE", async () => {
    using one = await upscaler();
    const { data: _, ...shape } = picture(20, 20);
    const row = new Uint8Array(60);
    const consume = async (rows: Iterable<Uint8Array | Uint16Array>): Promise<string> =>
      refusalOf(
        (async () => {
          for await (const band of one.stream({ ...shape, rows })) void band;
        })(),
      );
    expect(await consume([row.subarray(1)])).toContain("whole rows of 60 samples");
    expect(await consume(new Array(19).fill(row))).toContain("expected 20, got 19");
    expect(await consume(new Array(21).fill(row))).toContain("expected 20, got 21");
    expect(await consume([new Uint16Array(60)])).toContain("Uint16Array");
    expect(one.stats()).toMatchObject({ queued: 0, running: 0, finished: 0 });
  });

  test("a reader that leaves early closes its source and holds nobody up", async () => {
    using one = await upscaler();
    const image = picture(40, 200);
    let closed = false;
    const rows = (function* () {
      try {
        yield* parts(image, 1);
      } finally {
        closed = true;
      }
    })();
    const { data: _, ...shape } = image;
    const bands = one.stream({ ...shape, rows }, { tile: 16 });
    await bands.next();
    const other = await one.run(picture(16, 16)); // while the reader pauses
    expect(other.width).toBe(32);
    await bands.return();
    expect(closed).toBe(true);
    for await (const chunk of one.png(image, { tile: 16 })) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(one.stats()).toMatchObject({ queued: 0, running: 0, finished: 1 });
  });

  test("errors of the source pass through bands and PNG alike", async () => {
    using one = await upscaler();
    const { data: _, ...shape } = picture(20, 40);
    const broken = function* () {
      yield new Uint8Array(60);
      throw new TypeError("the upload ended");
    };
    const bands = one.stream({ ...shape, rows: broken() });
    await expect(bands.next()).rejects.toThrow("the upload ended");
    const png = one.png({ ...shape, rows: broken() });
    await expect(
      (async () => {
        for await (const bytes of png) void bytes;
      })(),
    ).rejects.toThrow("the upload ended");
  });
});

describe("what it tells", () => {
  test("stats() has the time of finished runs", async () => {
    using one = await upscaler();
    expect(one.stats()).toMatchObject({ finished: 0, msPerMegapixel: null, bits: 32 });
    await one.run(picture(60, 60));
    const { finished, msPerMegapixel, isa, peakBytes } = one.stats();
    expect(finished).toBe(1);
    expect(msPerMegapixel).toBeGreaterThan(0);
    expect(native().backends()).toContain(isa);
    expect(peakBytes).toBeGreaterThan(60 * 60 * 16 * 4);
  });

  test("diagnostics channels see every run begin and end, failures too", async () => {
    using one = await upscaler();
    const seen: string[] = [];
    const messages = new Set<RunMessage>();
    const hear = (message: unknown, name: string | symbol): void => {
      const { kind, image, error } = message as RunMessage;
      messages.add(message as RunMessage);
      seen.push(`${String(name)} ${kind} ${image.width} ${error?.name ?? ""}`.trim());
    };
    const names = ["spr2q:run:start", "spr2q:run:end"];
    for (const name of names) subscribe(name, hear);
    await one.run(picture(30, 20));
    const onProgress = () => {
      throw new RangeError("stop");
    };
    await one.run(picture(40, 20), { onProgress }).catch(() => {});
    for (const name of names) unsubscribe(name, hear);
    await one.run(picture(50, 20));
    expect(seen).toEqual([
      "spr2q:run:start run 30",
      "spr2q:run:end run 30",
      "spr2q:run:start run 40",
      "spr2q:run:end run 40 RangeError",
    ]);
    const [first] = messages;
    expect(first.milliseconds).toBeGreaterThan(0);
    expect(first).toMatchObject({ scale: 2, bits: 32, device: "cpu" });
  });
});

describe("a model for all threads", () => {
  const hash = ({ data }: RasterImage): string => createHash("sha256").update(data).digest("hex");

  test.each(["full precision", "quantised"])("is the same model in a worker (%s)", async (kind) => {
    const folder = temporaryFolder();
    const path =
      kind === "quantised"
        ? await writePackedModel(folder, policyFor("best", 4))
        : await writeTinyModel(folder);
    using one = await Upscaler.load(path);
    const image = picture(40, 30);
    const wanted = await one.run(image);
    const held = native().constantBytes();
    const shared = one.share();
    expect(one.share()).toBe(shared);
    const source = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { createHash } = require("node:crypto");
      import(workerData.library).then(async ({ Upscaler, decodePng }) => {
        const { native } = await import(workerData.binding);
        const upscaler = await Upscaler.load(workerData.shared);
        const image = decodePng(workerData.png, "in.png");
        const { data } = await upscaler.run(image);
        const hash = createHash("sha256").update(data).digest("hex");
        const again = upscaler.share() !== undefined && upscaler.bits;
        parentPort.postMessage({ hash, bits: again, held: native().constantBytes() });
      });`;
    const dist = pathToFileURL(join(packageRoot(), "dist", "lib", "/"));
    const workerData = {
      shared,
      png: encodePng(image),
      library: new URL("index.js", dist).href,
      binding: new URL("binding.js", dist).href,
    };
    const worker = new Worker(source, { eval: true, workerData });
    const told = await new Promise<{ hash: string; bits: number; held: number }>(
      (resolve, reject) => worker.once("message", resolve).once("error", reject),
    );
    await worker.terminate();
    expect(told.hash).toBe(hash(wanted));
    expect(told.bits).toBe(one.bits);
    expect(told.held).toBe(held); // its plan's constants are those of this thread's plan
  });

  test.each(["spr2q", "quamba", "mambaquant", "ptq4vm"])(
    "has all that a model made by %s has",
    async (method) => {
      const train = temporaryFolder();
      await writeFile(join(train, "a.png"), encodePng(picture(64, 64)));
      await writeFile(join(train, "b.png"), encodePng(picture(64, 64, 3, 8, 9)));
      const few = { iterations: 0, osrc: 0, patch: 16, rank: 1, rectifiers: 1 };
      const run = quantize(asModel(tinyNetwork()), { bits: 4, train, out: train, method, ...few });
      using own = await Upscaler.load((await run).model);
      using other = await Upscaler.load(structuredClone(own.share()));
      expect(await other.run(picture(20, 20))).toEqual(await own.run(picture(20, 20)));
      const rotated = own.model.quantised!.rotations.size;
      expect(rotated > 0).toBe(["quamba", "mambaquant"].includes(method));
    },
  );

  test("anything else is refused", async () => {
    using one = await upscaler();
    const foreign = { ...one.share(), architecture: "abacus" };
    expect(await refusalOf(Upscaler.load(foreign))).toContain("ERR_ARGUMENT");
  });
});
