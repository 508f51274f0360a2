import { readFileSync, statSync } from "node:fs";
import { PNG } from "pngjs";
import { describe, expect, test } from "vitest";
import { render } from "../../assets/render/canvas.ts";
import { PICTURE_SIZE, PICTURES } from "../../assets/render/pictures.ts";

const file = (name: string) => new URL(`../../assets/images/${name}.png`, import.meta.url);

describe.each(PICTURES)("picture $name", ({ name, scene, seed }) => {
  const png = PNG.sync.read(readFileSync(file(name)));

  test("is a small opaque RGB file of the stated size", () => {
    expect(statSync(file(name)).size).toBeLessThan(100 * 1024);
    expect([png.width, png.height]).toEqual([PICTURE_SIZE, PICTURE_SIZE]);
    expect(readFileSync(file(name))[25]).toBe(2); // colour type: RGB without alpha
  });

  test("is what its scene renders to, in crops of every region", () => {
    for (const [x, y] of [
      [20, 20],
      [96, 120],
      [150, 60],
      [60, 170],
    ]) {
      const crop = { x, y, width: 6, height: 5 };
      const rgb = render(scene, PICTURE_SIZE, crop, seed);
      for (let i = 0; i < rgb.length; i++) {
        const pixel = Math.floor(i / 3);
        const row = y + Math.floor(pixel / crop.width);
        const at = 4 * (row * PICTURE_SIZE + x + (pixel % crop.width)) + (i % 3);
        // One code of slack: sine and power may differ in the last bit between engines.
        expect(Math.abs(rgb[i] - png.data[at])).toBeLessThanOrEqual(1);
      }
    }
  });

  test("has edges in every direction and flat places too", () => {
    const luma = (x: number, y: number) => png.data[4 * (y * PICTURE_SIZE + x) + 1];
    const energy = [0, 0, 0, 0];
    let flat = 0;
    for (let y = 1; y < PICTURE_SIZE - 1; y++) {
      for (let x = 1; x < PICTURE_SIZE - 1; x++) {
        const dx = luma(x + 1, y) - luma(x - 1, y);
        const dy = luma(x, y + 1) - luma(x, y - 1);
        const turn = (Math.atan2(dy, dx) / Math.PI + 1) * 4; // eighths of a circle
        energy[Math.round(turn) % 4] += dx * dx + dy * dy;
        if (Math.hypot(dx, dy) < 8) flat++;
      }
    }
    const total = energy.reduce((a, b) => a + b);
    for (const part of energy) expect(part / total).toBeGreaterThan(0.04);
    expect(flat / PICTURE_SIZE ** 2).toBeGreaterThan(0.05);
    expect(flat / PICTURE_SIZE ** 2).toBeLessThan(0.8);
  });
});

test("another seed moves the samples, so pixels on an edge change a little and not much", () => {
  const crop = { x: 40, y: 40, width: 24, height: 24 };
  const { scene } = PICTURES[1];
  const one = render(scene, PICTURE_SIZE, crop, 1);
  const two = render(scene, PICTURE_SIZE, crop, 2);
  const differences = Array.from(one, (value, i) => Math.abs(value - two[i]));
  expect(Math.max(...differences)).toBeGreaterThan(0);
  expect(Math.max(...differences)).toBeLessThan(24);
});
