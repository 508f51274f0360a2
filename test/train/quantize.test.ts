/** A whole quantisation on a small network: what it writes, stopping, resuming, and what it keeps. */
import { mkdir, mkdtemp, readFile, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { openModel } from "../../lib/infer/model.ts";
import { evaluate } from "../../lib/infer/evaluate.ts";
import {
  quantize,
  type QuantizeOptions,
  type QuantizeResult,
  quantizeModel,
} from "../../lib/methods/quantize.ts";
import type { TrainEvent } from "../../lib/train/events.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import { asModel, tinyNet, writePictures } from "../tiny_net.ts";

let root = "";

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "spr2q-quantize-"));
  await writePictures(join(root, "train"), 4, 64);
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
    iterations: 6,
    osrc: 3,
    batch: 2,
    patch: 16,
    seed: 7,
    version: "0.0.0",
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

test("a run writes model, table, log and checkpoint, and the loss falls", async () => {
  const losses: number[] = [];
  const result = await drain(
    quantizeModel(asModel(tinyNet()), options("whole", { iterations: 40, osrc: 2 })),
    (event) => {
      if (event.type === "step" && event.stage === "rgt") losses.push(event.loss);
    },
  );
  const files = await readdir(join(root, "whole"));
  expect(files.sort()).toEqual([
    "checkpoint.safetensors",
    "log.jsonl",
    "model.safetensors",
    "table.json",
  ]);
  const mean = (part: number[]): number => part.reduce((a, b) => a + b, 0) / part.length;
  expect(mean(losses.slice(-8))).toBeLessThan(mean(losses.slice(0, 8)));
  const table = JSON.parse(await readFile(join(root, "whole", "table.json"), "utf8"));
  expect(Object.keys(table.layers)).toHaveLength(3 * 11);
  for (const gates of Object.values(table.layers) as number[][]) {
    expect(gates.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
  }
  expect(table.kept === "calibrated").toBe(table.lossAfter <= table.lossBefore);
  const model = await openModel(result.model);
  expect(model.quantised?.policy).toMatchObject({ bits: 4, scope: "best" });
  expect(model.metadata.seed).toBe("7");
});

for (const [stopAt, recipe] of [
  ["rgt", "quick"],
  ["osrc", "quick"],
  ["rgt", "paper"],
  ["osrc", "paper"],
] as const) {
  test(`${recipe}: a run stopped during ${stopAt} and resumed ends in the bytes of one that was not`, async () => {
    const whole = await drain(
      quantizeModel(asModel(tinyNet()), options(`straight-${recipe}-${stopAt}`, { recipe })),
    );
    const stop = new AbortController();
    const halted = drain(
      quantizeModel(
        asModel(tinyNet()),
        options(`halted-${recipe}-${stopAt}`, { recipe, signal: stop.signal }),
      ),
      (event) => {
        if (event.type === "step" && event.stage === stopAt && event.iteration === 2) stop.abort();
      },
    );
    await expect(halted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    const again = await drain(
      quantizeModel(
        asModel(tinyNet()),
        options(`halted-${recipe}-${stopAt}`, { recipe, resume: true }),
      ),
    );
    expect(await readFile(again.model)).toEqual(await readFile(whole.model));
  });
}

test("recipe best takes detailed patches at 2 bit and 1, plain ones at 4; other recipes plain ones", async () => {
  const run = async (out: string, more: Partial<QuantizeOptions>) => {
    const { settings, model } = await drain(
      quantizeModel(asModel(tinyNet()), options(out, { iterations: 3, osrc: 1, ...more })),
    );
    const { tensors } = readSafetensors(await readFile(model), model);
    const bytes = [...tensors.values()].map(({ data }) => Buffer.from(data.buffer).toString("hex"));
    return { candidates: settings.candidates, text: bytes.join(" ") };
  };
  const [two, four, one] = [
    await run("detailed", { bits: 2 }),
    await run("four-places", { bits: 2, candidates: 4 }),
    await run("one-place", { bits: 2, candidates: 1 }),
  ];
  expect([two.candidates, four.candidates, one.candidates]).toEqual(["4", "4", "1"]);
  expect(two.text).toBe(four.text);
  expect(two.text).not.toBe(one.text);
  expect((await run("four-bit", { bits: 4 })).candidates).toBe("1");
  expect((await run("one-bit", { bits: 1 })).candidates).toBe("4");
  const paper = { bits: 2, recipe: "paper", scope: "table4" } as const;
  expect((await run("paper-patches", paper)).candidates).toBe("1");
  const other = drain(
    quantizeModel(asModel(tinyNet()), {
      ...options("other-method", { candidates: 2, scope: "table4" }),
      method: "2dquant",
    }),
  );
  await expect(other).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
});

test("recipe paper trains input-dependent gates and freezes their mean into the table", async () => {
  const result = await drain(
    quantizeModel(
      asModel(tinyNet()),
      options("paper", { recipe: "paper", iterations: 12, osrc: 0 }),
    ),
  );
  const gates = Object.entries(result.table.layers).filter(([key]) => !key.includes("route"));
  const uneven = gates.filter(([, row]) => Math.abs(row[0] - 0.5) > 1e-4);
  expect(uneven.length).toBeGreaterThan(gates.length / 2);
  expect((await openModel(result.model)).metadata.recipe).toBe("paper");
});

test("a checkpoint of another run is refused with ERR_RESUME", async () => {
  await drain(quantizeModel(asModel(tinyNet()), options("other", { iterations: 2, osrc: 0 })));
  const run = quantizeModel(
    asModel(tinyNet()),
    options("other", { iterations: 2, osrc: 0, seed: 8, resume: true }),
  );
  await expect(drain(run)).rejects.toMatchObject({ code: "ERR_RESUME" });
});

test("bounds alone (no rectifiers) and one rectifier run, and pack to the same size", async () => {
  const none = await drain(quantizeModel(asModel(tinyNet()), options("n0", { rectifiers: 0 })));
  const one = await drain(quantizeModel(asModel(tinyNet()), options("n1", { rectifiers: 1 })));
  expect(none.table.layers).toEqual({});
  expect(Math.abs(none.bytes - one.bytes)).toBeLessThan(64);
});

test("a quantised model is not quantised twice", async () => {
  const { model } = await drain(
    quantizeModel(asModel(tinyNet()), options("once", { iterations: 0, osrc: 0 })),
  );
  const run = quantizeModel(await openModel(model), options("twice"));
  await expect(drain(run)).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
});

test("an empty training folder and too small pictures are ERR_DATA", async () => {
  await mkdir(join(root, "empty"), { recursive: true });
  const empty = quantizeModel(asModel(tinyNet()), options("x", { train: join(root, "empty") }));
  await expect(drain(empty)).rejects.toMatchObject({ code: "ERR_DATA" });
  const large = quantizeModel(asModel(tinyNet()), options("y", { patch: 48 }));
  await expect(drain(large)).rejects.toMatchObject({ code: "ERR_DATA" });
});

test("the run tells where bounds and gates are, from before the first step to the last", async () => {
  const states: Extract<TrainEvent, { type: "state" }>[] = [];
  const run = quantizeModel(asModel(tinyNet()), options("states", { iterations: 6, osrc: 3 }));
  await drain(run, (event) => {
    if (event.type === "state") states.push(event);
  });
  const of = (stage: string): number[] =>
    states.filter((one) => one.stage === stage).map(({ iteration }) => iteration);
  expect(of("rgt")).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(of("osrc")).toEqual([0, 1, 2, 3]);
  const rgt = states.filter(({ stage }) => stage === "rgt");
  expect(rgt[0].largestGate).toEqual({ median: 0.5, greatest: 0.5 });
  expect(rgt[6].largestGate?.greatest).toBeGreaterThan(0.5);
  const kinds = Object.keys(rgt[0].ranges);
  expect(kinds).toContain("weights of linear layers");
  for (const kind of kinds) expect(rgt[0].ranges[kind]).toBeGreaterThan(0);
  const moved = kinds.filter((kind) => rgt[0].ranges[kind] !== rgt[6].ranges[kind]);
  expect(moved).toContain("inputs of linear layers");
  const osrc = states.filter(({ stage }) => stage === "osrc");
  expect(osrc[3].ranges).toEqual(osrc[0].ranges);
});

test("quantize() can be awaited, and evaluate() measures what it left, image by image", async () => {
  const [train, out] = [join(root, "train"), join(root, "library")];
  const few = { iterations: 2, osrc: 1, batch: 1, patch: 16, recipe: "quick" } as const;
  const types = new Set<string>();
  const run = quantize(asModel(tinyNet()), { bits: 4, train, out, ...few });
  for await (const event of run) types.add(event.type);
  expect([...types]).toEqual([
    "start",
    "stage",
    "state",
    "step",
    "eval",
    "checkpoint",
    "route",
    "done",
  ]);
  const { model, table } = await run;
  const scores: string[] = [];
  const measured = evaluate(model, { hr: train });
  for await (const { name, psnr, done, total } of measured) {
    expect(psnr).toBeGreaterThan(5);
    scores.push(`${name} ${done}/${total}`);
  }
  expect(scores).toEqual(["0 1/4", "1 2/4", "2 3/4", "3 4/4"]);
  const { psnr, images } = await measured;
  expect(psnr).toBeCloseTo(images.reduce((sum, image) => sum + image.psnr, 0) / 4, 10);
  expect((await evaluate({ bicubic: 2 }, { hr: train })).psnrLuma).toBeGreaterThan(psnr);
  expect(Object.keys(table!.layers).length).toBeGreaterThan(0);
});
