/** `--method` on the command line: what quantize, its report and inspect say of the method. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { command as inspect } from "../../lib/cli/commands/inspect.ts";
import { command as quantize } from "../../lib/cli/commands/quantize.ts";
import { encodePng } from "../../lib/io/png.ts";
import { type Outcome, picture, runCommand, writeTinyModel } from "./tiny_model.ts";

let folder = "";
let model = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "spr2q-methods-"));
  model = await writeTinyModel(folder);
  mkdirSync(join(folder, "train"));
  for (let i = 0; i < 4; i++)
    writeFileSync(join(folder, "train", `${i}.png`), encodePng(picture(64, 64, 3, 8, 30 + i)));
});

function run(out: string, ...more: string[]): Promise<Outcome> {
  const files = ["--model", model, "--train", join(folder, "train"), "--out", join(folder, out)];
  const sizes = ["--batch", "1", "--patch", "16", "--iterations", "2", "--osrc", "0"];
  return runCommand(quantize, [...files, ...sizes, "--bits", "2", "--quiet", ...more]);
}

test("quantize --method NAME: its own scope and recipe, no table of another run, a report that names it", async () => {
  await run("m");
  expect(existsSync(join(folder, "m", "table.json"))).toBe(true);
  const { code, out } = await run("m", "--method", "quamba", "--json");
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ method: "quamba", scope: "table4", table: null });
  expect(existsSync(join(folder, "m", "table.json"))).toBe(false);
  const report = readFileSync(join(folder, "m", "report.html"), "utf8");
  expect(report).toMatch(/Quamba \(ICLR 2025\)/);
});

test("inspect names the method, its online rotations and their MACs, its ranges by token", async () => {
  for (const [method, words] of [
    ["quamba", /online rotations +inputs of assm\.in_proj\.0 and assm\.out_proj: \d+\.\d+ G MACs/],
    ["ptq4vm", /ranges by token +inputs of assm\.in_proj\.0, .*op by op/],
    ["minmax", /method +minmax: least and largest value/],
  ] as const) {
    await run(method, "--method", method);
    const file = join(folder, method, "model.safetensors");
    const { code, out } = await runCommand(inspect, [file]);
    expect(code).toBe(0);
    expect(out).toMatch(words);
    const json = JSON.parse((await runCommand(inspect, [file, "--json"])).out);
    expect(json.method.name).toBe(method);
    expect(json.method.rotationMacs > 0).toBe(method === "quamba");
    expect(json.method.tokenRanges.length > 0).toBe(method === "ptq4vm");
  }
});

test("--condition is spr2q's, and its file says what became of the weights", async () => {
  const refused = await run("c", "--method", "dobi", "--condition");
  expect(refused.code).toBe(1);
  expect(refused.err).toMatch(/ERR_ARGUMENT/);
  expect((await run("c", "--condition")).code).toBe(0);
  const { out } = await runCommand(inspect, [join(folder, "c", "model.safetensors"), "--json"]);
  const [before, after] = JSON.parse(out).metadata.condition_numbers.split(" to ").map(Number);
  expect(after).toBeLessThanOrEqual(before);
});
