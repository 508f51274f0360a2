/** `spr2q serve` from the installed package: its models, its page with all the page needs, its end. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodePng } from "../../lib/io/png.ts";
import { installed, startServer } from "./installed.ts";

test("spr2q serve enlarges, has its whole page, and ends by SIGTERM with 0", async () => {
  const { url, child, exited } = await startServer();
  const picture = readFileSync(join(installed, "assets", "images", "wall.png"));
  const { width, height } = decodePng(picture, "wall.png");
  const networks = ["mambairv2-light-x2", "mambairv2-light-x2-w4", "mambairv2-light-x4-w4"];
  for (const model of [...networks, "bicubic-x2", "bicubic-x4"]) {
    const scale = model.includes("x4") ? 4 : 2;
    const body = { method: "POST", body: picture };
    const response = await fetch(`${url}/upscale?model=${model}`, body);
    const large = decodePng(new Uint8Array(await response.arrayBuffer()), model);
    expect([model, large.width, large.height]).toEqual([model, scale * width, scale * height]);
  }

  const page = await (await fetch(`${url}/`)).text();
  const parts = [...page.matchAll(/(?:src|href)="([^"#:]+)"/g)].map(([, path]) => path as string);
  expect(parts.length).toBeGreaterThan(1);
  for (const part of parts)
    expect([part, (await fetch(new URL(part, url))).status]).toEqual([part, 200]);

  child.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
});
