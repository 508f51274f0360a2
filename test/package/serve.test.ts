/** `spr2q serve` from the installed package: its models, its page with all the page needs, its end. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { decodePng } from "../../lib/io/png.ts";
import { app, environment, installed, program } from "./installed.ts";

test("spr2q serve enlarges, has its whole page, and ends by SIGTERM with 0", async () => {
  const argv = [program, "serve", "--port", "0"];
  const child = spawn(process.execPath, argv, { cwd: app, env: environment });
  onTestFinished(() => void child.kill("SIGKILL"));
  const exited = once(child, "exit");
  let text = "";
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on("data", (bytes) => {
      text += bytes;
      const found = /listening on (\S+)/.exec(text)?.[1];
      if (found) resolve(found);
    });
    child.stderr.on("data", (bytes) => {
      text += bytes;
    });
    child.once("exit", () => reject(new Error(text)));
  });

  const picture = readFileSync(join(installed, "assets", "images", "wall.png"));
  const { width, height } = decodePng(picture, "wall.png");
  for (const model of ["tiny-x2", "tiny-x2-w4", "tiny-x2-w2", "tiny-x2-w1", "bicubic-x2"]) {
    const body = { method: "POST", body: picture };
    const response = await fetch(`${url}/upscale?model=${model}`, body);
    const large = decodePng(new Uint8Array(await response.arrayBuffer()), model);
    expect([model, large.width, large.height]).toEqual([model, 2 * width, 2 * height]);
  }

  const page = await (await fetch(`${url}/`)).text();
  const parts = [...page.matchAll(/(?:src|href)="([^"#:]+)"/g)].map(([, path]) => path as string);
  expect(parts.length).toBeGreaterThan(1);
  for (const part of parts)
    expect([part, (await fetch(new URL(part, url))).status]).toEqual([part, 200]);

  child.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
});
