/**
 * Renders assets/images/*.png, the project's own pictures: calibration data and test images of
 * `spr2q demo`. Run from the project's root (Node 22.18 runs TypeScript as it is):
 *
 *     node assets/render/make.ts
 *     npx tsc -p assets/render && node out/render/make.js        (Node 20)
 *
 * The same bytes come out every time; test/report/scenes.test.ts renders crops and compares.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PNG } from "pngjs";
import { render } from "./canvas.ts";
import { PICTURE_SIZE, PICTURES } from "./pictures.ts";

/** Encodes RGB bytes as a PNG file without alpha. */
function encodePng(rgb: Uint8Array, size: number): Buffer {
  const png = new PNG({ width: size, height: size });
  for (let i = 0; i < size * size; i++) {
    png.data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
    png.data[4 * i + 3] = 255;
  }
  return PNG.sync.write(png, { colorType: 2, deflateLevel: 9 });
}

const folder = process.argv[2] ?? join("assets", "images");
mkdirSync(folder, { recursive: true });
const whole = { x: 0, y: 0, width: PICTURE_SIZE, height: PICTURE_SIZE };
for (const { name, scene, seed } of PICTURES) {
  const started = performance.now();
  const file = encodePng(render(scene, PICTURE_SIZE, whole, seed), PICTURE_SIZE);
  writeFileSync(join(folder, `${name}.png`), file);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${name}.png  ${(file.length / 1024).toFixed(0)} KiB  ${seconds} s`);
}
