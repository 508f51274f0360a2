/** The thread that decodes: what it answers, and what becomes of its tasks when it ends. */
import { expect, onTestFinished, test } from "vitest";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import { PixelThread } from "../../lib/serve/pixels.ts";
import { picture } from "../cli/tiny_model.ts";
import { refusalOf } from "../io/helpers.ts";

function start(): PixelThread {
  const thread = new PixelThread();
  onTestFinished(() => thread.close());
  return thread;
}

/** A copy that may be given away. */
const png = (side: number): Uint8Array => Uint8Array.from(encodePng(picture(side, side, 4, 16)));

test("tasks are answered in any number, each with its own result", async () => {
  const thread = start();
  const sides = [8, 9, 10, 11];
  const images = await Promise.all(sides.map((side) => thread.decode(png(side), "a")));
  for (const [i, side] of sides.entries()) expect(images[i]).toEqual(decodePng(png(side), "a"));
  expect(await thread.outline(png(12), "a")).toMatchObject({ width: 12, channels: 4, depth: 16 });
});

test("errors keep their code and name, and the next task is not disturbed", async () => {
  const thread = start();
  const cut = thread.decode(png(8).slice(0, 60), "my image");
  const good = thread.decode(png(8), "a");
  expect(await refusalOf(cut)).toMatch(/^ERR_IMAGE: my image: damaged PNG/);
  expect((await good).width).toBe(8);
});

test("closing fails what is under way with ERR_ABORTED; later tasks get a new thread", async () => {
  const thread = start();
  const lost = refusalOf(thread.decode(png(300), "a"));
  await thread.close();
  expect(await lost).toContain("ERR_ABORTED");
  expect((await thread.decode(png(8), "a")).width).toBe(8);
});
