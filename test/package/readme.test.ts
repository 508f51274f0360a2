/**
 * The README's first three ways in, word for word, where the package is installed: command line,
 * library, server. The fourth, the queue, is in examples/bullmq/test/readme.test.js.
 */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, expect, test } from "vitest";
import { packageRoot, packageVersion } from "../../lib/binding.ts";
import { decodePng } from "../../lib/io/png.ts";
import { app, node, place, startServer } from "./installed.ts";

const readme = readFileSync(join(packageRoot(), "README.md"), "utf8");

/** The first block of code below a heading. */
function block(heading: string): string {
  const below = readme.split(`\n${heading}\n`)[1] ?? "";
  const code = /```\w+\n([\s\S]*?)```/.exec(below)?.[1];
  if (!code) throw new Error(`README.md has no code below "${heading}"`);
  return code;
}

const env = { ...process.env, PREBUILDS_ONLY: "1" };
const shell = (script: string): Promise<{ stdout: string }> =>
  promisify(execFile)("bash", ["-e", "-c", script], { cwd: app, env });

/** Width and height of a PNG in the application's folder. */
function sizeOf(name: string): [number, number] {
  const { width, height } = decodePng(readFileSync(join(app, name)), name);
  return [width, height];
}
const doubled = (name: string): number[] => sizeOf(name).map((side) => 2 * side);

const lines = block("## Use").trim().split("\n");

beforeAll(async () => {
  const made = ["photos", "run", "larger", "two", "large.png", "wall.png", "bands.png"];
  for (const name of made) await rm(join(app, name), { recursive: true, force: true });
  const tarball = `spr2q-${packageVersion()}.tgz`;
  expect(lines[0]).toBe(`npm install CLONE/${tarball}`); // run.mjs has done that
  expect(existsSync(join(place, tarball))).toBe(true);
  await shell(lines[1]); // pictures, which the other ways in need too
});

test("the commands below Use", async () => {
  const { stdout } = await shell(lines.slice(2).join("\n"));
  expect(sizeOf("large.png")).toEqual(doubled("photos/harbour.png"));
  expect(sizeOf("larger/page.png")).toEqual(doubled("photos/page.png"));
  expect(existsSync(join(app, "run", "report.html"))).toBe(true);
  expect(stdout).toMatch(/^mean +\d\d\.\d+ dB/m);
  expect(stdout).toContain("Table 1");
});

test("the program below As a library", async () => {
  await writeFile(join(app, "enlarge.mjs"), block("### As a library"));
  const { stdout } = await node(["enlarge.mjs"]);
  const numbers = stdout.trim().split("\n").map(Number);
  expect(numbers[0]).toBe(0);
  expect(numbers).toContain(1);
  expect(numbers.at(-1)).toBeGreaterThan(28); // dB of the 2-bit network; bicubic has 28.3
  for (const name of ["large.png", "bands.png"]) {
    expect(sizeOf(name)).toEqual(doubled("photos/harbour.png"));
  }
  expect(sizeOf("wall.png")).toEqual(doubled("photos/wall.png"));
});

const hasCurl = !spawnSync("curl", ["--version"]).error;
if (!hasCurl) console.log("skipped: curl is not installed");

test.skipIf(!hasCurl)("the commands below As a server", async () => {
  const [serve, curl] = block("### As a server").trim().split("\n");
  const words = serve.split("#")[0].trim().split(" ");
  expect(words.slice(0, 3)).toEqual(["npx", "spr2q", "serve"]);
  await rm(join(app, "large.png"), { force: true });
  const { url } = await startServer(words.slice(3));
  expect(curl).toContain("http://127.0.0.1:8080/");
  await shell(curl.replace("http://127.0.0.1:8080", url));
  expect(sizeOf("large.png")).toEqual(doubled("photos/harbour.png"));
});
