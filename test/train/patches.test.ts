/** Crops for training. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodePng } from "../../lib/io/png.ts";
import { random } from "../io/helpers.ts";
import { type Batch, PatchSource } from "../../lib/train/patches.ts";

const SIDE = 64;
const PATCH = 8;
let folder: string;
let source: PatchSource;

/** A picture of noise whose left three quarters are faint and whose right quarter is strong. */
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "patches-"));
  const next = random(3);
  const data = new Uint8Array(SIDE * SIDE * 3);
  for (let i = 0; i < data.length; i++) {
    const strong = Math.floor(i / 3) % SIDE >= (SIDE * 3) / 4;
    data[i] = strong ? (next() < 0.5 ? 200 + 40 * next() : 40 * next()) : 80 + 20 * next();
  }
  const image = { width: SIDE, height: SIDE, channels: 3 as const, depth: 8 as const, data };
  writeFileSync(join(folder, "noise.png"), encodePng(image));
  source = await PatchSource.open(folder, 2, PATCH);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Share of HR samples that lie in the strong quarter. */
function strength({ high }: Batch): number {
  let count = 0;
  for (const value of high.data) if (value < 0.2 || value > 0.6) count++;
  return count / high.size;
}

test("a batch is a function of seed and iteration; one candidate is a plain draw", () => {
  const [a, b] = [source.draw(3, PATCH, 5, 9), source.draw(3, PATCH, 5, 9, 1)];
  expect(a.low.shape).toEqual([3, PATCH, PATCH, 3]);
  expect(a.high.shape).toEqual([3, 2 * PATCH, 2 * PATCH, 3]);
  expect(b.high.data).toEqual(a.high.data);
  expect(source.draw(3, PATCH, 5, 10).high.data).not.toEqual(a.high.data);
  const many = source.draw(3, PATCH, 5, 9, 4);
  expect(source.draw(3, PATCH, 5, 9, 4).high.data).toEqual(many.high.data);
});

test("of several candidates the one with most detail is taken", () => {
  const shares = [1, 2, 4, 16].map((candidates) =>
    strength(source.draw(64, PATCH, 1, 1, candidates)),
  );
  expect(shares[0]).toBeLessThan(0.4);
  for (let i = 1; i < shares.length; i++) expect(shares[i]).toBeGreaterThan(shares[i - 1]);
  expect(shares[3]).toBeGreaterThan(0.8);
});
