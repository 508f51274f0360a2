/** Tables on paper: budgets, cell names, published facts, and the three forms of a sheet. */
import { expect, test } from "vitest";
import { effortOfMinutes, parseBudget } from "../../lib/tables/budget.ts";
import { type Cell, cellId, effortText, sameSpec } from "../../lib/tables/cell.ts";
import { DATASET_NAMES } from "../../lib/tables/datasets.ts";
import { efficiencySheet } from "../../lib/tables/efficiency.ts";
import { qualitySheet } from "../../lib/tables/quality.ts";
import { QUALITY_TABLES } from "../../lib/tables/registry.ts";
import { csv, json, markdown } from "../../lib/tables/sheet.ts";
import { cellsOf, published, type QualityTable } from "../../lib/tables/table.ts";

const SPEC = cellsOf("MambaIRv2-light", 2).spr2q(4, "best", "best");
const TABLE: QualityTable = {
  name: "t",
  title: "A table",
  datasets: ["Set5", "B100"],
  seeds: 2,
  notes: ["A note, with a comma."],
  rows: [
    { label: "ours", cell: SPEC, published: published("37.72/.9589 -", ["Set5", "B100"]) },
    { label: "theirs", cell: cellsOf("MambaIRv2-light", 2).at(4, "minmax") },
  ],
};

function cell(seed: number, psnr: number, more: Partial<Cell> = {}): Cell {
  const score = { psnr, ssim: 0.9, images: 5, seconds: 1 };
  return {
    format: 1,
    ...SPEC,
    seed,
    budget: { iterations: 100, osrc: 10, batch: 4, patch: 32 },
    weights: { file: "w.pth", sha256: "ab".repeat(32), what: "official" },
    train: { folder: "Kodak24", images: 24 },
    device: "a CPU",
    seconds: 60,
    cpuSeconds: 110,
    bytes: 2 ** 20,
    readings: { packed: { Set5: score, B100: { ...score, images: 10 } } },
    date: "2026-01-01",
    version: "0.1.0",
    ...more,
  };
}

test("budgets are read as written, and anything else is ERR_USAGE", () => {
  const steps = parseBudget("60x4x32");
  expect(steps.kind === "steps" && steps.effort("SwinIR-light")).toEqual({
    iterations: 60,
    osrc: 10,
    batch: 4,
    patch: 32,
  });
  const full = parseBudget("full");
  expect(full.kind === "steps" && full.effort("MambaIRv2-light").iterations).toBe(12_000);
  expect(full.kind === "steps" && full.effort("SwinIR-light").batch).toBe(16);
  for (const text of ["", "60x4", "60x4x8", "60x0x32", "0min", "x4x32", "-1min", "fast"]) {
    expect(() => parseBudget(text), text).toThrow(/ERR_USAGE|--budget/);
  }
});

test("minutes become steps at the measured pace, OSRC among them", () => {
  const budget = parseBudget("90min");
  if (budget.kind !== "minutes") throw new Error("expected minutes");
  const effort = effortOfMinutes(budget, 0.5);
  expect(effort.iterations + effort.osrc).toBe(10_800);
  expect(effort.osrc / effort.iterations).toBeCloseTo(1 / 24, 2);
});

test("a cell's name tells its spec, seed, budget and weights apart", () => {
  const id = (spec = SPEC, seed = 0, budget = "common", sha = "0123456789"): string =>
    cellId(spec, seed, budget, sha);
  expect(id()).toBe("mambairv2-light_x2_4bit_spr2q_best_best_seed-0_common_01234567");
  const cells = cellsOf("MambaIRv2-light", 2);
  const all = [
    id(),
    id(SPEC, 1),
    id(SPEC, 0, "60x4x32"),
    id(SPEC, 0, "common", "ffffffffff"),
    id(cells.spr2q(4, "best", "best", { rank: 16 })),
    id(cells.spr2q(4, "best", "best", { osrc: false })),
    id(cells.full),
    id(cells.bicubic, 0, "common", ""),
  ];
  expect(new Set(all).size).toBe(all.length);
  for (const one of all) expect(one).toMatch(/^[a-z0-9_.-]+$/);
});

test("settings are the same whatever their order, and a missing one is not a default", () => {
  const other = { ...SPEC, settings: { scope: "best", recipe: "best", rank: undefined } };
  expect(sameSpec(SPEC, other)).toBe(true);
  expect(sameSpec(SPEC, { ...SPEC, settings: { ...SPEC.settings, rank: 8 } })).toBe(false);
  expect(sameSpec(SPEC, { ...SPEC, bits: 2 })).toBe(false);
});

test("no two rows of a table share label, scale and bits, and every figure is plausible", () => {
  for (const { name, rows, datasets } of QUALITY_TABLES) {
    const keys = rows.map(({ label, cell: { scale, bits } }) => `${label} ${scale} ${bits}`);
    expect(new Set(keys).size, `table ${name}`).toBe(keys.length);
    for (const { label, published: figures } of rows) {
      for (const [set, quality] of Object.entries(figures ?? {})) {
        expect(datasets).toContain(set);
        expect(quality.psnr, `${name} ${label} ${set}`).toBeGreaterThan(23);
        expect(quality.psnr).toBeLessThan(40);
        if (quality.ssim !== null) expect(quality.ssim).toBeGreaterThan(0.67);
        if (quality.ssim !== null) expect(quality.ssim).toBeLessThan(0.98);
      }
    }
  }
});

test("published quality falls with the bits in every column", () => {
  const figure = (table: string, scale: number, bits: number, set: string): number => {
    const rows = QUALITY_TABLES.find(({ name }) => name === table)!.rows;
    const wanted = bits === 32 ? "full precision" : "SPR2Q, recipe paper";
    const row = rows.find(
      (one) => one.label === wanted && one.cell.scale === scale && one.cell.bits === bits,
    )!;
    return row.published![set as "Set5"]!.psnr;
  };
  for (const scale of [2, 4]) {
    for (const set of DATASET_NAMES) {
      const falling = [
        figure("1", scale, 32, set),
        figure("1", scale, 4, set),
        figure("1", scale, 2, set),
        figure("6", scale, 1, set),
      ];
      expect(
        [...falling].sort((a, b) => b - a),
        `x${scale} ${set}`,
      ).toEqual(falling);
    }
  }
});

test("a sheet sets the published line before the measured one, seeds as mean and deviation", () => {
  const sheet = qualitySheet(TABLE, [cell(0, 38), cell(1, 37.9)]);
  expect(sheet.lines.map(({ origin }) => origin)).toEqual([
    "published",
    "measured",
    "not measured",
  ]);
  const [, measured] = sheet.lines;
  expect(measured.values[3]).toMatchObject({ psnr: 37.95, ssim: 0.9 });
  expect((measured.values[3] as { deviation: number }).deviation).toBeCloseTo(0.0707, 4);
  expect(measured.values[sheet.columns.indexOf("budget")]).toBe(
    `${effortText(cell(0, 1).budget)} on 24 images of Kodak24`,
  );
  expect(sheet.columns).toContain("B100 (10 of 100 images)");
  expect(sheet.notes.join(" ")).toMatch(/part only: B100;/);
});

test("cells of different budgets or weights are lines of their own", () => {
  const budget = { iterations: 12_000, osrc: 500, batch: 8, patch: 64 };
  const weights = { file: "w.pth", sha256: "cd".repeat(32), what: "own" };
  const cells = [cell(0, 38), cell(0, 38.1, { budget }), cell(0, 30, { weights })];
  const sheet = qualitySheet(TABLE, cells);
  expect(sheet.lines.filter(({ origin }) => origin === "measured")).toHaveLength(3);
});

test("Markdown tells measured from published at a glance; CSV and JSON carry the source", () => {
  const sheet = qualitySheet(TABLE, [cell(0, 37.93)]);
  const text = markdown(sheet);
  expect(text).toMatch(/\| ours \| published \| x2 \| 4 \| 37\.72\/\.9589 \|/);
  expect(text).toMatch(/\| ours \| measured \| x2 \| 4 \| \*\*37\.93\/\.9000\*\* \|/);
  expect(text).toMatch(/\| theirs \| not measured \|/);
  const [head, first, second] = csv(sheet).split("\n");
  expect(head.split(",").slice(0, 6)).toEqual([
    "method",
    "source",
    "scale",
    "bits",
    "Set5 PSNR",
    "Set5 PSNR deviation",
  ]);
  expect(first).toMatch(/^ours,published,x2,4,37\.720,,0\.95890,/);
  expect(second).toMatch(/^ours,measured,x2,4,37\.930,,0\.90000,/);
  const widths = csv(sheet)
    .trim()
    .split("\n")
    .map((line) => line.replace(/"[^"]*"/g, "quoted").split(",").length);
  expect(new Set(widths)).toEqual(new Set([17]));
  const object = json(sheet) as { lines: Record<string, unknown>[] };
  expect(object.lines[1]).toMatchObject({ source: "measured", seconds: 60, MiB: 1 });
});

test("Table 4: what is counted at scope table4 rounds to what was published", () => {
  const sheet = efficiencySheet([]);
  const of = (origin: string, bits: string, label: RegExp): number[] => {
    const line = sheet.lines.find(
      (one) => one.origin === origin && one.values[1] === bits && label.test(`${one.values[0]}`),
    )!;
    return line.values
      .slice(2, 6)
      .map((value) => (value as { value: number } | null)?.value ?? Number.NaN);
  };
  for (const bits of ["32", "4", "2"]) {
    const [size, , macs] = of("predicted", bits, /full|table4/);
    const [printed, , price] = of("published", bits, /./);
    expect(Math.abs(size - printed), `${bits} bit`).toBeLessThan(0.0051);
    expect(Math.abs(macs - price), `${bits} bit`).toBeLessThan(0.051);
  }
  // Half-exponent codes are priced at the width of their squares.
  expect(of("predicted", "4", /best/)[2]).toBeGreaterThan(of("predicted", "4", /table4/)[2]);
  expect(sheet.lines.filter(({ origin }) => origin === "not measured")).toHaveLength(4);
});

test("Table 4: a timed cell is a measured line with milliseconds and speed-up", () => {
  const spec = { network: "MambaIRv2-light", scale: 4, method: "plan" } as const;
  const settings = { scope: "best" };
  const figures = { milliseconds: 412.4, ratio: 1.76, othersBusy: 0.04 };
  const one = cell(0, 0, { ...spec, settings, bits: 4, figures, readings: {}, train: null });
  const text = markdown(efficiencySheet([one]));
  expect(text).toMatch(/\| SPR2Q, scope best \| measured \| 4 \|.*\*\*412\*\* \| \*\*1\.76\*\*/);
  expect(text).toMatch(/\| predicted \| 4 \| \*1\.2041\*/);
});

test("the drop from full precision is taken from rows of the same origin and the same weights", () => {
  const cells = cellsOf("MambaIRv2-light", 2);
  const full = { label: "full precision", cell: cells.full };
  const table = {
    ...TABLE,
    rows: [{ ...full, published: published("38.26", ["Set5"]) }, ...TABLE.rows],
  };
  const float = cell(0, 38.25, { ...cells.full, settings: undefined, bits: 32, train: null });
  const other = { file: "o.pth", sha256: "ef".repeat(32), what: "own" };
  const sheet = qualitySheet(table, [float, cell(0, 37.9), cell(0, 36, { weights: other })]);
  const at = sheet.columns.indexOf("Set5 drop, dB");
  const drops = sheet.lines
    .filter(({ values }) => values[0] === "ours")
    .map(({ values }) => (values[at] as { value: number } | null)?.value ?? null);
  expect(drops[0]).toBeCloseTo(0.54, 6);
  expect(drops[1]).toBeCloseTo(0.35, 6);
  expect(drops[2]).toBeNull();
  expect(sheet.lines.find(({ origin }) => origin === "measured")?.values[at]).toBeNull();
});
