/** Filling cells: what is written, what a second run keeps, and what a stopped one loses. */
import { mkdir, mkdtemp, readdir, readFile, readlink, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { encodePng, fromRgbFloat } from "../../lib/io/png.ts";
import { saveFloat } from "../../lib/models/save.ts";
import { SWINIR } from "../../lib/models/swinir.ts";
import { parseBudget } from "../../lib/tables/budget.ts";
import type { CellSpec } from "../../lib/tables/cell.ts";
import { measureCell } from "../../lib/tables/measure.ts";
import { fillTables } from "../../lib/tables/run.ts";
import { readCells } from "../../lib/tables/store.ts";
import { cellsOf, type QualityTable } from "../../lib/tables/table.ts";
import { WeightFolder, type WeightSource } from "../../lib/tables/weights.ts";
import type { Workshop } from "../../lib/tables/workshop.ts";
import { initialise } from "../../lib/train/pretrain.ts";
import { asModel, pictures, tinySwin } from "../tiny_net.ts";

let root = "";

async function picturesInto(dir: string, count: number, side: number): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (let i = 0; i < count; i++) {
    const image = fromRgbFloat(pictures(1, side, 40 + i).data, side, side, 8);
    await writeFile(join(dir, `${i}.png`), encodePng(image));
  }
}

/** Files below `folder` that this process holds open, where the system tells. */
async function openFiles(folder: string): Promise<string[]> {
  const fds = await readdir("/proc/self/fd").catch(() => []);
  const paths = fds.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ""));
  return (await Promise.all(paths)).filter((path) => path.startsWith(folder));
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "spr2q-cells-"));
  await picturesInto(join(root, "images", "Set5", "HR"), 2, 32);
  await picturesInto(join(root, "train"), 4, 64);
});

/** A folder that has one network, a tiny one under the name of the light one. */
const weights: WeightSource = {
  find: async (name, scale) => {
    if (name !== "SwinIR-light" || scale !== 2) return null;
    const model = asModel(tinySwin());
    return { model, source: { file: "mine.safetensors", sha256: model.sha256, what: "made here" } };
  },
};

function shop(name: string, signal = new AbortController().signal): Workshop {
  return {
    weights,
    images: join(root, "images"),
    train: join(root, "train"),
    results: join(root, name, "results"),
    models: join(root, name, "models"),
    budget: parseBudget("2x1x16"),
    version: "0.0.0",
    signal,
    onStep: () => {},
  };
}

const cells = cellsOf("SwinIR-light", 2);
const SPR2Q = cells.spr2q(2, "best", "best");
const table = (...specs: CellSpec[]): QualityTable => ({
  name: "t",
  title: "t",
  datasets: ["Set5"],
  seeds: 1,
  notes: [],
  rows: specs.map((cell, i) => ({ label: `row ${i}`, cell })),
});

async function fill(what: QualityTable, at: Workshop): Promise<string[]> {
  const kinds: string[] = [];
  for await (const { outcome } of fillTables([what], at, { only: () => true }))
    kinds.push(outcome.kind);
  return kinds;
}

test("a cell file says what its figures depend on, and a second run keeps it", async () => {
  const at = shop("whole");
  const what = table(cells.bicubic, cells.full, SPR2Q);
  expect(await fill(what, at)).toEqual(["measured", "measured", "measured"]);
  const stored = await readCells(at.results);
  const made = stored.find(({ cell }) => cell.method === "spr2q")!.cell;
  expect(made).toMatchObject({
    ...SPR2Q,
    seed: 0,
    budget: { iterations: 2, osrc: 10, batch: 1, patch: 16 },
    weights: { file: "mine.safetensors", what: "made here" },
    train: { folder: "train", images: 4 },
    version: "0.0.0",
  });
  expect(made.weights?.sha256).toMatch(/^[0-9a-f]{64}$/);
  expect(made.seconds).toBeGreaterThan(0);
  const score = made.readings.packed!.Set5;
  expect(score.images).toBe(2);
  expect(score.psnr).toBeGreaterThan(5);
  const folders = await readdir(at.models);
  expect(await readdir(join(at.models, folders[0]))).not.toContain("checkpoint.safetensors");
  expect(await fill(what, at)).toEqual(["kept", "kept", "kept"]);
});

test("a set that appears later is evaluated without training again", async () => {
  const at = { ...shop("later"), images: join(root, "later-images") };
  await picturesInto(join(at.images, "Set5"), 1, 32);
  await fill(table(SPR2Q), at);
  const [{ id }] = await readCells(at.results);
  const model = join(at.models, id, "model.safetensors");
  const before = (await stat(model)).mtimeMs;
  await picturesInto(join(at.images, "Set14"), 1, 32);
  expect(await fill(table(SPR2Q), at)).toEqual(["measured"]);
  expect((await stat(model)).mtimeMs).toBe(before);
  const [{ cell }] = await readCells(at.results);
  expect(Object.keys(cell.readings.packed!)).toEqual(["Set5", "Set14"]);
});

test("a run that is stopped while training goes on to the same bytes", async () => {
  const straight = shop("straight");
  await fill(table(SPR2Q), straight);
  const [{ id }] = await readCells(straight.results);
  const stop = new AbortController();
  const halted = {
    ...shop("halted", stop.signal),
    onStep: ({ label, done }: { label: string; done: number }) => {
      if (label.endsWith("osrc") && done === 3) stop.abort();
    },
  };
  await expect(fill(table(cells.bicubic, SPR2Q), halted)).rejects.toMatchObject({
    code: "ERR_ABORTED",
  });
  expect((await readCells(halted.results)).map(({ cell }) => cell.method)).toEqual(["bicubic"]);
  expect(await readdir(join(halted.models, id))).toContain("checkpoint.safetensors");
  const again = { ...halted, signal: new AbortController().signal, onStep: () => {} };
  expect(await fill(table(cells.bicubic, SPR2Q), again)).toEqual(["kept", "measured"]);
  const bytes = (at: Workshop) => readFile(join(at.models, id, "model.safetensors"));
  expect(await bytes(again)).toEqual(await bytes(straight));
  const budget = async ({ results }: Workshop) =>
    (await readCells(results)).find(({ cell }) => cell.method === "spr2q")!.cell.budget;
  expect(await budget(again)).toEqual(await budget(straight));
});

test("a run that is killed goes on with the seconds that it had cost by its last checkpoint", async () => {
  const at = { ...shop("killed"), budget: parseBudget("101x1x16") };
  const killed = {
    ...at,
    onStep: ({ done }: { done: number }) => {
      if (done === 101) throw new Error("killed"); // behind the checkpoint of step 100
    },
  };
  await expect(fill(table(SPR2Q), killed)).rejects.toThrow("killed");
  expect(await openFiles(at.models)).toEqual([]); // the run was ended, not left alone
  const [folder] = await readdir(at.models);
  const path = join(at.models, folder, "spent.json");
  const spent = JSON.parse(await readFile(path, "utf8"));
  expect(spent.seconds).toBeGreaterThan(0);
  await writeFile(path, JSON.stringify({ ...spent, seconds: 1e6 }));
  expect(await fill(table(SPR2Q), at)).toEqual(["measured"]);
  const [{ cell }] = await readCells(at.results);
  expect(cell.seconds).toBeGreaterThan(1e6);
  expect(cell.budget.iterations).toBe(101);
});

test("what cannot be measured says why, and measuring goes on", async () => {
  const at = shop("missing");
  const unknown = cells.at(2, "magic");
  const other = cellsOf("MambaIRv2-light", 4).full;
  const whys: string[] = [];
  for await (const { outcome } of fillTables([table(unknown, other, cells.bicubic)], at, {
    only: () => true,
  })) {
    whys.push(outcome.kind === "missing" ? outcome.why : outcome.kind);
  }
  expect(whys).toEqual([
    "method magic is not in this version",
    "no full-precision MambaIRv2-light x4 weights",
    "measured",
  ]);
});

test("a damaged cell file is ERR_DATA that names it", async () => {
  const at = shop("damaged");
  await mkdir(at.results, { recursive: true });
  await writeFile(join(at.results, "broken.json"), "{");
  await expect(readCells(at.results)).rejects.toMatchObject({
    code: "ERR_DATA",
    message: expect.stringContaining("broken.json"),
  });
  await writeFile(join(at.results, "broken.json"), '{"format": 99}');
  await expect(readCells(at.results)).rejects.toMatchObject({ code: "ERR_DATA" });
});

test("a budget in minutes is fixed before training begins", async () => {
  const at = { ...shop("minutes"), budget: parseBudget("0.02min") };
  const outcome = await measureCell(cells.spr2q(4, "quick", "table4"), 0, ["packed"], at, []);
  if (outcome.kind === "missing") throw new Error(outcome.why);
  const { budget } = outcome.stored.cell;
  expect(budget.iterations).toBeGreaterThanOrEqual(1);
  expect(budget.iterations + budget.osrc).toBeGreaterThanOrEqual(11);
  expect(outcome.stored.id).toContain("0.02min");
});

test("weights are found by what files hold: the light sizes, full precision, the right scale", async () => {
  const dir = join(root, "weights");
  await mkdir(dir);
  const light = initialise(SWINIR, SWINIR.lightConfig(2), 1);
  await writeFile(join(dir, "a.safetensors"), saveFloat(tinySwin(), {}));
  await writeFile(join(dir, "b.safetensors"), saveFloat(light, { iterations: "7" }));
  const folder = new WeightFolder(dir);
  const found = await folder.find("SwinIR-light", 2);
  expect(found?.source).toMatchObject({
    file: "b.safetensors",
    what: "trained by spr2q in 7 iterations",
  });
  expect(await folder.find("SwinIR-light", 4)).toBeNull();
  expect(await folder.find("MambaIRv2-light", 2)).toBeNull();
  const noted = await new WeightFolder(dir, "official").find("SwinIR-light", 2);
  expect(noted?.source.what).toBe("official");
  await expect(new WeightFolder(join(dir, "none")).find("SwinIR-light", 2)).rejects.toMatchObject({
    code: "ERR_IO",
  });
});

test("a method that does not train has the budget of none", async () => {
  const at = shop("dobi");
  await fill(table(cells.at(4, "dobi")), at);
  const [{ cell }] = await readCells(at.results);
  expect(cell.budget).toEqual({ iterations: 0, osrc: 0, batch: 0, patch: 0 });
  expect(cell.bytes).toBeGreaterThan(0);
});

test("controls add OSRC's steps to RGT's where there are no gates to calibrate", async () => {
  const at = shop("controls");
  const settings = { osrc: "into-rgt" } as const;
  await fill(
    table(
      cells.spr2q(4, "best", "best", { ...settings, rectifiers: 0 }),
      cells.spr2q(4, "best", "best", { ...settings, tune: "weights" }),
      cells.spr2q(4, "best", "best", { ...settings, gate: "uniform" }),
    ),
    at,
  );
  const stored = await readCells(at.results);
  expect(stored).toHaveLength(3);
  for (const { cell } of stored) {
    expect(cell.budget).toMatchObject({ iterations: 12, osrc: 0 });
  }
  const scores = stored.map(({ cell }) => cell.readings.packed!.Set5.psnr);
  expect(new Set(scores).size).toBe(3);
});

test("a dynamic gate is read both ways from one run, and a set that appears later trains again", async () => {
  const at = {
    ...shop("gates"),
    images: join(root, "gates-images"),
    budget: parseBudget("60x1x16"),
  };
  await picturesInto(join(at.images, "Set5"), 1, 32);
  const spec = cells.spr2q(2, "best", "best", { gate: "dynamic" });
  const both = await measureCell(spec, 0, ["packed", "own gates"], at, []);
  if (both.kind === "missing") throw new Error(both.why);
  const { readings } = both.stored.cell;
  expect(readings["own gates"]!.Set5.psnr).toBeGreaterThan(5);
  expect(readings["own gates"]!.Set5.psnr).not.toBe(readings.packed!.Set5.psnr);
  await picturesInto(join(at.images, "Set14"), 1, 32);
  const again = await measureCell(spec, 0, ["packed", "own gates"], at, [both.stored]);
  if (again.kind === "missing") throw new Error(again.why);
  expect(again.stored.cell.readings["own gates"]!.Set5).toMatchObject({
    psnr: readings["own gates"]!.Set5.psnr,
  });
  expect(Object.keys(again.stored.cell.readings["own gates"]!)).toEqual(["Set5", "Set14"]);
});

test("training that diverges is a result: the cell says so and the next one is measured", async () => {
  const broken: WeightSource = {
    find: async () => {
      const model = asModel(tinySwin());
      model.net.get("conv_after_body.weight").data.fill(Number.NaN);
      const source = { file: "nan.pth", sha256: "1".repeat(64), what: "broken on purpose" };
      return { model, source };
    },
  };
  const at = { ...shop("diverged"), weights: broken };
  expect(await fill(table(SPR2Q, cells.bicubic), at)).toEqual(["measured", "measured"]);
  const cell = (await readCells(at.results)).find((one) => one.cell.method === "spr2q")!.cell;
  expect(cell.failed).toMatch(/diverged at rgt iteration 0/);
  expect(await fill(table(SPR2Q), at)).toEqual(["kept"]);
});
