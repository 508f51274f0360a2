/** What the server answers with, over real connections on loopback. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { Upscaler } from "../../lib/infer/upscaler.ts";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import { encodeWithSharp } from "../../lib/io/sharp.ts";
import { bicubicResize } from "../../lib/metrics/resize.ts";
import { bundledModels } from "../../lib/serve/catalogue.ts";
import { picture, writeTinyModel } from "../cli/tiny_model.ts";
import { hasSharp, temporaryFolder } from "../io/helpers.ts";
import { fault, health, pixels, png, post, serve } from "./helpers.ts";

describe("an image in, its enlargement out", () => {
  test.each([
    [3, 8],
    [1, 8],
    [4, 8],
    [2, 16],
  ] as const)("%d channels of %d bits: the pixels that Upscaler gives", async (channels, depth) => {
    const { url, model } = await serve();
    const image = picture(21, 17, channels, depth);
    const response = await post(url, encodePng(image), "?seed=3");
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("image/png");
    using upscaler = await Upscaler.load(model);
    expect(await pixels(response)).toEqual(await upscaler.run(image, { seed: 3 }));
  });

  test("rows are sent as they are made: the first come while the last are not there", async () => {
    const { url } = await serve({ upscaler: { tile: 16 } });
    const response = await post(url, encodePng(picture(64, 900, 4, 16)));
    const reader = response.body!.getReader();
    const first = await reader.read();
    expect(first.value?.length).toBeGreaterThan(0);
    expect((await health(url)).running).toBe(1);
    await reader.cancel();
  });

  test("stream=no: the same bytes at once, with their length and times", async () => {
    const { url } = await serve({ upscaler: { tile: 16 } });
    const streamed = new Uint8Array(await (await post(url, png(40))).arrayBuffer());
    const response = await post(url, png(40), "?stream=no");
    const whole = new Uint8Array(await response.arrayBuffer());
    expect(whole).toEqual(streamed);
    expect(Number(response.headers.get("content-length"))).toBe(whole.length);
    expect(response.headers.get("server-timing")).toMatch(
      /^wait;dur=[\d.]+, decode;dur=[\d.]+, run;dur=[\d.]+$/,
    );
  });

  test("bicubic, 8 bits as MATLAB does, alpha and 16 bits kept", async () => {
    const { url } = await serve();
    const image = picture(20, 11);
    const large = await pixels(await post(url, encodePng(image), "?model=bicubic-x2"));
    expect(large.data).toEqual(bicubicResize(image.data as Uint8Array, 20, 11, 3, 2).data);
    const deep = picture(20, 11, 4, 16);
    const kept = await pixels(await post(url, encodePng(deep), "?model=bicubic-x2"));
    expect([kept.width, kept.height, kept.channels, kept.depth]).toEqual([40, 22, 4, 16]);
  });

  test("several models are chosen by name, and listed with what their files say", async () => {
    const [a, b] = [
      await writeTinyModel(temporaryFolder(), 1),
      await writeTinyModel(temporaryFolder(), 2),
    ];
    const { url } = await serve({ models: [`one=${a}`, `two=${b}`] });
    const { models } = (await (await fetch(`${url}/models`)).json()) as { models: object[] };
    expect(models).toMatchObject([
      { name: "one", kind: "network", scale: 2, bits: 32, architecture: "mambairv2" },
      { name: "two", kind: "network", scale: 2 },
      { name: "bicubic-x2", kind: "bicubic", bits: null, bytes: null },
    ]);
    const image = picture(16, 16);
    using second = await Upscaler.load(b);
    const answer = await pixels(await post(url, encodePng(image), "?model=two"));
    expect(answer).toEqual(await second.run(image));
    const first = await pixels(await post(url, encodePng(image)));
    expect(first.data).not.toEqual(answer.data);
  });

  test.skipIf(!hasSharp)("JPEG, WebP and AVIF come in, limits held by their headers", async () => {
    const { url } = await serve({ limits: { maxPixels: 1000 } });
    for (const kind of ["jpeg", "webp", "avif"] as const) {
      const [small, large] = [picture(20, 16), picture(40, 30)];
      const answer = await post(url, Buffer.from(await encodeWithSharp(small, kind, 90)));
      expect(await pixels(answer)).toMatchObject({ width: 40, height: 32, channels: 3, depth: 8 });
      const refused = await post(url, Buffer.from(await encodeWithSharp(large, kind, 90)));
      expect(await fault(refused)).toEqual([413, "ERR_LIMIT"]);
    }
    const cut = await post(url, Buffer.from([0xff, 0xd8, 0xff, 0xe0]));
    expect(await fault(cut)).toEqual([400, "ERR_IMAGE"]);
  });

  test("the bundled models enlarge a bundled picture, better than bicubic at every precision", async () => {
    const { url } = await serve({ models: [] });
    const { models } = (await (await fetch(`${url}/models`)).json()) as {
      models: { name: string; bits: number | null }[];
    };
    expect(models.map((model) => model.bits)).toEqual([32, 4, 32, 4, null, null]);
    expect(bundledModels().length).toBe(4);
    const original = decodePng(readFileSync(join(packageRoot(), "assets/images/harbour.png")), "o");
    const error = async (name: string): Promise<number> => {
      const scale = name.includes("x4") ? 4 : 2;
      const small = await (await fetch(`${url}/samples/harbour-x${scale}.png`)).arrayBuffer();
      const { data } = await pixels(await post(url, small, `?model=${name}`));
      return data.reduce((sum, value, i) => sum + (value - original.data[i]) ** 2, 0);
    };
    for (const scale of [2, 4]) {
      const bicubic = await error(`bicubic-x${scale}`);
      const name = `mambairv2-light-x${scale}`;
      expect(await error(name)).toBeLessThan(bicubic);
      expect(await error(`${name}-w4`)).toBeLessThan(bicubic);
    }
  });
});

test("metrics count requests, jobs, pixels and bytes in Prometheus' format", async () => {
  const { url } = await serve();
  await (await post(url, png(16))).arrayBuffer();
  await (await post(url, "hello")).arrayBuffer();
  await fetch(`${url}/some/path`);
  const response = await fetch(`${url}/metrics`);
  expect(response.headers.get("content-type")).toContain("version=0.0.4");
  const text = await response.text();
  expect(text).toContain('spr2q_requests_total{path="/upscale",status="200"} 1\n');
  expect(text).toContain('spr2q_requests_total{path="/upscale",status="400"} 1\n');
  expect(text).toContain('spr2q_requests_total{path="other",status="404"} 1\n');
  expect(text).toContain('spr2q_pixels_total{model="tiny"} 1024\n');
  expect(text).toContain(`spr2q_received_bytes_total ${png(16).length}\n`);
  expect(text).toMatch(/spr2q_run_seconds_bucket\{model="tiny",le="\+Inf"\} 1\n/);
  for (const line of text.trimEnd().split("\n")) {
    expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? [-+\d.e]+)$/);
  }
});
