/**
 * Whole runs with --device cuda over the host shim: quantize and train end to end, the same bytes on
 * a rerun and after a stop, and what they write is an ordinary model file.
 */
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { describeCuda } from "../../lib/binding.ts";
import { command as train } from "../../lib/cli/commands/train.ts";
import { openModel } from "../../lib/infer/model.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import { MAMBAIRV2 } from "../../lib/models/mambairv2.ts";
import type { TrainEvent } from "../../lib/train/events.ts";
import { initialise } from "../../lib/train/pretrain.ts";
import {
  type QuantizeOptions,
  type QuantizeResult,
  quantizeModel,
} from "../../lib/methods/quantize.ts";
import { runCommand } from "../cli/tiny_model.ts";
import { asModel, TINY, writePictures } from "../tiny_net.ts";

const { code, hostMemory } = describeCuda();
const SMALL = { ...TINY, depths: [1] };
let root = "";

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "spr2q-cuda-"));
  await writePictures(join(root, "train"), 2, 32);
});

function options(out: string, more: Partial<QuantizeOptions> = {}): QuantizeOptions {
  return {
    bits: 4,
    train: join(root, "train"),
    out: join(root, out),
    recipe: "quick",
    scope: "best",
    rank: 2,
    rectifiers: 2,
    iterations: 3,
    osrc: 2,
    batch: 1,
    patch: 16,
    seed: 7,
    version: "0.0.0",
    device: "cuda",
    ...more,
  };
}

async function drain(
  run: AsyncGenerator<TrainEvent, QuantizeResult>,
  each: (event: TrainEvent) => void = () => {},
): Promise<QuantizeResult> {
  let step = await run.next();
  for (; !step.done; step = await run.next()) each(step.value);
  return step.value;
}

const quantize = (out: string, more: Partial<QuantizeOptions> = {}) =>
  quantizeModel(asModel(initialise(MAMBAIRV2, SMALL, 1)), options(out, more));

describe.skipIf(!hostMemory || code !== "OK")("training on the shim (npm run test:cuda)", () => {
  test("quantize: a rerun and a run stopped in each stage end in the same bytes", async () => {
    const losses: number[] = [];
    const whole = await drain(quantize("whole"), (event) => {
      if (event.type === "step" && event.stage === "rgt") losses.push(event.loss);
    });
    const wanted = await readFile(whole.model);
    expect(losses).toHaveLength(3);
    const table = await readFile(join(root, "whole", "table.json"), "utf8");
    const model = await openModel(whole.model);
    expect(model.quantised?.policy).toMatchObject({ bits: 4, scope: "best" });
    for (const stage of ["rgt", "osrc"] as const) {
      const stop = new AbortController();
      const halted = drain(quantize(`halted-${stage}`, { signal: stop.signal }), (event) => {
        if (event.type === "step" && event.stage === stage && event.iteration === 1) stop.abort();
      });
      await expect(halted).rejects.toMatchObject({ code: "ERR_ABORTED" });
      const again = await drain(quantize(`halted-${stage}`, { resume: true }));
      expect(await readFile(again.model)).toEqual(wanted);
      expect(await readFile(join(root, `halted-${stage}`, "table.json"), "utf8")).toBe(table);
    }
    // Its bits are those of this device: the CPU does not go on from it.
    const other = drain(quantize("halted-rgt", { resume: true, device: "cpu" }));
    await expect(other).rejects.toMatchObject({ code: "ERR_RESUME" });
  });

  test("quantize with input-dependent gates freezes them on the GPU", async () => {
    const result = await drain(quantize("paper", { recipe: "paper", iterations: 1, osrc: 1 }));
    for (const gates of Object.values(result.table.layers)) {
      expect(gates.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
    }
    expect((await openModel(result.model)).metadata.recipe).toBe("paper");
  });

  test("train: the loss is the CPU's, and a rerun gives the same file", async () => {
    await writeFile(join(root, "config.json"), JSON.stringify({ ...SMALL, scale: undefined }));
    const run = async (out: string, device: string) => {
      const argv = ["--config", join(root, "config.json"), "--train", join(root, "train")];
      argv.push("--out", join(root, out), "--iterations", "2", "--batch", "1", "--patch", "16");
      const outcome = await runCommand(train, [...argv, "--device", device, "--json"]);
      expect(outcome.err).not.toContain("ERR_");
      const model = await readFile(join(root, out, "model.safetensors"));
      const { tensors } = readSafetensors(model, out);
      return { loss: JSON.parse(outcome.out).loss as number, model, tensors };
    };
    const [cpu, first] = [await run("cpu", "cpu"), await run("first", "cuda")];
    expect(Math.abs(first.loss - cpu.loss) / cpu.loss).toBeLessThan(1e-5);
    for (const [name, { data }] of cpu.tensors) {
      // Two steps of warm-up move a weight by 1.5e-5 at most; a leaf left behind would show.
      const got = first.tensors.get(name)!.data as Float32Array;
      const apart = [...(data as Float32Array)].map((value, i) => Math.abs(value - got[i]));
      expect(apart.reduce((a, b) => a + b) / apart.length, name).toBeLessThan(1e-6);
    }
    expect((await run("second", "cuda")).model).toEqual(first.model);
  });
});
