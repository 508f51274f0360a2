/** What every hazard script begins with: the library under test, a model, a picture, and how to report. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** Folder of the package under test: an installed one, or the working tree. */
export const home = process.env.SPR2Q_PACKAGE;
export const lib = (path) => import(pathToFileURL(join(home, "dist", "lib", path)).href);
export const spr2q = await lib("index.js");
export const { native } = await lib("binding.js");

/** A network of the working tree that runs in milliseconds. */
export const modelPath = join(import.meta.dirname, "../../fixtures/tiny-x2.safetensors");
export const photograph = () =>
  spr2q.decodePng(readFileSync(join(home, "assets", "images", "harbour.png")), "harbour.png");

/** A picture of seeded noise over a gradient. */
export function picture(width, height, channels = 3) {
  const data = new Uint8Array(width * height * channels);
  let state = (width * 31 + height) | 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    data[i] = ((i / channels) % width) / 2 + ((state >>> 24) & 63);
  }
  return { width, height, channels, depth: 8, data };
}

/** The one line that the test reads. */
export const report = (value) => process.stdout.write(`\nRESULT ${JSON.stringify(value)}\n`);
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Slope of y over its index, by least squares. */
export function slope(y) {
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const [mx, my] = [(y.length - 1) / 2, mean(y)];
  const up = y.reduce((sum, value, x) => sum + (x - mx) * (value - my), 0);
  return up / y.reduce((sum, _, x) => sum + (x - mx) ** 2, 0);
}
