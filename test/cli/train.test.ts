/** `spr2q train`: steps on a network small enough for milliseconds, from every start. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { command } from "../../lib/cli/commands/train.ts";
import { openModel } from "../../lib/infer/model.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { TINY, writePictures } from "../tiny_net.ts";
import { runCommand, writePackedModel } from "./tiny_model.ts";

let root: string;
let common: string[];
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "train-"));
  await writePictures(join(root, "photos"), 4, 64);
  const { scale, ...sizes } = TINY;
  expect(scale).toBe(2);
  writeFileSync(join(root, "tiny.json"), JSON.stringify(sizes));
  const sizesFile = join(root, "tiny.json");
  common = [
    "--config",
    sizesFile,
    "--train",
    join(root, "photos"),
    "--batch",
    "2",
    "--patch",
    "16",
  ];
});
afterAll(() => rmSync(root, { recursive: true }));

const model = (run: string): string => join(root, run, "model.safetensors");
const bytes = (run: string): Buffer => readFileSync(model(run));
const train = (run: string, ...more: string[]) =>
  runCommand(command, [...common, "--out", join(root, run), "--iterations", "4", ...more]);

describe("starts", () => {
  test("interpolation is the default, random differs, a model of another scale goes on", async () => {
    expect((await train("plain", "--iterations", "4")).code).toBe(0);
    expect((await train("same", "--start", "interpolation")).code).toBe(0);
    expect((await train("random", "--start", "random")).code).toBe(0);
    expect(bytes("same").equals(bytes("plain"))).toBe(true);
    expect(bytes("random").equals(bytes("plain"))).toBe(false);
    const larger = await train("larger", "--scale", "4", "--start", model("plain"));
    expect(larger.code, larger.err).toBe(0);
    const { net } = await openModel(model("larger"));
    expect(net.config.scale).toBe(4);
    const settings = JSON.parse(
      readFileSync(join(root, "larger", "log.jsonl"), "utf8").split("\n")[0],
    ).settings;
    expect(settings).toMatchObject({ scale: 4, start: model("plain"), candidates: 1 });
  });

  test("what cannot be a start is refused before a step", async () => {
    const missing = await train("missing", "--start", join(root, "none.safetensors"));
    expect(missing.code).toBe(1);
    expect(missing.err).toMatch(/none\.safetensors/);
    const packed = await writePackedModel(root, policyFor("best", 4));
    const refused = await train("refused", "--start", packed);
    expect(refused.code).toBe(1);
    expect(refused.err).toMatch(/expected a full-precision model.*quantised/is);
  });
});

test("--half stores each weight as the nearest 16-bit float", async () => {
  expect((await train("whole")).code).toBe(0);
  expect((await train("half", "--half")).code).toBe(0);
  expect(bytes("half").length).toBeLessThan(0.6 * bytes("whole").length);
  const [whole, half] = [await openModel(model("whole")), await openModel(model("half"))];
  for (const [name, { data }] of whole.net.weights) {
    const stored = half.net.weights.get(name)!.data;
    data.forEach((value, i) => {
      expect(Math.abs(stored[i] - value)).toBeLessThanOrEqual(
        2 ** -11 * Math.abs(value) + 2 ** -25,
      );
    });
  }
});

test("candidates change the patches", async () => {
  expect((await train("one")).code).toBe(0);
  expect((await train("three", "--candidates", "3")).code).toBe(0);
  expect(bytes("three").equals(bytes("one"))).toBe(false);
});

test("a run that was stopped ends in the same bytes, and only with the same settings", async () => {
  const stop = new AbortController();
  const argv = [...common, "--iterations", "40", "--candidates", "2"];
  const whole = await runCommand(command, [...argv, "--out", join(root, "never-stopped")]);
  expect(whole.code, whole.err).toBe(0);
  const out = ["--out", join(root, "stopped")];
  const stopped = await runCommand(command, [...argv, ...out], stop.signal, (text) => {
    if (/training/.test(text)) stop.abort();
  });
  expect(stopped.code).toBe(130);
  const other = await runCommand(command, [...argv, ...out, "--resume", "--candidates", "3"]);
  expect(other.code).toBe(1);
  const resumed = await runCommand(command, [...argv, ...out, "--resume"]);
  expect(resumed.code, resumed.err).toBe(0);
  expect(bytes("stopped").equals(bytes("never-stopped"))).toBe(true);
});
