import { mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { listImages, loadPair, pairImages, reduce } from "../../lib/io/images.ts";
import { encodePng } from "../../lib/io/png.ts";
import { hasTestData, testData } from "../data.ts";
import { random, refusal, refusalOf, temporaryFolder } from "./helpers.ts";

function image(width: number, height: number, channels: 1 | 3 | 4 = 3) {
  const next = random(width * 31 + height);
  const data = Uint8Array.from({ length: width * height * channels }, () => next() * 256);
  return { width, height, channels, depth: 8, data } as const;
}

function put(folder: string, name: string, width = 8, height = 8, channels: 1 | 3 | 4 = 3): void {
  writeFileSync(join(folder, name), encodePng(image(width, height, channels)));
}

test("the PNG files of a folder are listed in order of their names", async () => {
  const folder = temporaryFolder();
  for (const name of ["b.png", "a.PNG", "c.png", ".hidden.png", "._c.png", "notes.txt", "png"]) {
    writeFileSync(join(folder, name), "");
  }
  mkdirSync(join(folder, "folder.png"));
  expect((await listImages(folder)).map((path) => basename(path))).toEqual([
    "a.PNG",
    "b.png",
    "c.png",
  ]);
});

test("a folder without images, or none at all, is refused", async () => {
  const folder = temporaryFolder();
  expect(await refusalOf(listImages(folder))).toMatch(/^ERR_DATA: .*at least one PNG/);
  expect(await refusalOf(listImages(join(folder, "none")))).toMatch(/^ERR_IO: .*none/);
});

test("pairs are found under both naming rules, in the folder or in XS below it", async () => {
  const hr = temporaryFolder();
  const lr = temporaryFolder();
  mkdirSync(join(lr, "X2"));
  for (const name of ["a", "b", "c"]) put(hr, `${name}.png`);
  put(lr, "ax2.png", 4, 4);
  put(join(lr, "X2"), "b_LRBI_x2.png", 4, 4);
  put(join(lr, "X2"), "cx2.png", 4, 4);
  const pairs = await pairImages(hr, lr, 2);
  expect(pairs.map(({ name, lr }) => [name, basename(lr!)])).toEqual([
    ["a", "ax2.png"],
    ["b", "b_LRBI_x2.png"],
    ["c", "cx2.png"],
  ]);
  put(hr, "d.png");
  const text = await refusalOf(pairImages(hr, lr, 2));
  expect(text).toMatch(/^ERR_DATA: .*of d: expected dx2\.png or d_LRBI_x2\.png/);
});

test("without a folder of LR images they are made from HR, cropped to a multiple first", async () => {
  const hr = temporaryFolder();
  put(hr, "a.png", 11, 9, 4);
  put(hr, "grey.png", 6, 6, 1);
  const pairs = await pairImages(hr, null, 3);
  const { hr: high, lr: low } = await loadPair(pairs[0], 3);
  expect([high.width, high.height, low.width, low.height]).toEqual([9, 9, 3, 3]);
  expect(reduce(high, 3)).toEqual(low);
  const grey = await loadPair(pairs[1], 3);
  expect(grey.lr).toMatchObject({ channels: 3, width: 2, height: 2 });
  put(hr, "tiny.png", 2, 6);
  const tiny = (await pairImages(hr, null, 3))[2];
  expect(await refusalOf(loadPair(tiny, 3))).toMatch(/^ERR_DATA: .*tiny\.png/);
});

test("HR is cropped to its LR file, and sizes that cannot belong together are refused", async () => {
  const folder = temporaryFolder();
  put(folder, "h.png", 9, 8);
  put(folder, "l.png", 4, 4);
  put(folder, "s.png", 3, 4);
  put(folder, "b.png", 5, 4);
  const pair = (lr: string) => ({ name: "h", hr: join(folder, "h.png"), lr: join(folder, lr) });
  const { hr } = await loadPair(pair("l.png"), 2);
  expect([hr.width, hr.height]).toEqual([8, 8]);
  for (const lr of ["s.png", "b.png"]) {
    expect(await refusalOf(loadPair(pair(lr), 2))).toMatch(/^ERR_DATA: .*2 times that of/);
  }
});

test("reducing an image whose sides are no multiples is refused", () => {
  expect(refusal(() => reduce(image(9, 8), 2))).toMatch(/^ERR_ARGUMENT/);
});

for (const scale of [2, 4]) {
  test.skipIf(!hasTestData)(
    `every Set5 LR file x${scale} is reproduced exactly from HR`,
    async () => {
      const lrDir = testData("images/Set5/LR_bicubic");
      const pairs = await pairImages(testData("images/Set5/HR"), lrDir, scale);
      expect(pairs.length).toBe(5);
      for (const pair of pairs) {
        const file = await loadPair(pair, scale);
        const made = await loadPair({ ...pair, lr: null }, scale);
        expect([made.hr.width, made.hr.height]).toEqual([file.hr.width, file.hr.height]);
        expect(Buffer.from(made.lr.data).equals(Buffer.from(file.lr.data))).toBe(true);
      }
    },
  );
}
