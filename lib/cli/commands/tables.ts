/** `spr2q tables`: the paper's tables, published beside measured; `--measure` fills what is missing. */
import { join } from "node:path";
import { Spr2qError } from "../../errors.ts";
import { ensureWritableDir, writeFileAtomic } from "../../io/files.ts";
import { parseBudget } from "../../tables/budget.ts";
import type { CellSpec } from "../../tables/cell.ts";
import { qualitySheet } from "../../tables/quality.ts";
import { efficiencySheet, measureEfficiency } from "../../tables/efficiency.ts";
import { tablesReport } from "../../tables/report.ts";
import type { Outcome } from "../../tables/measure.ts";
import { QUALITY_TABLES, TABLE_NAMES } from "../../tables/registry.ts";
import { type CellReport, fillTables } from "../../tables/run.ts";
import { csv, json, markdown, type Sheet } from "../../tables/sheet.ts";
import { readCells } from "../../tables/store.ts";
import type { QualityTable } from "../../tables/table.ts";
import { WeightFolder } from "../../tables/weights.ts";
import { type CommandContext, defineCommand } from "../args.ts";
import { packageVersion } from "../../binding.ts";

/** A folder below that of SPR2Q_TEST_DATA, where an option left it open. */
function folderOf(option: string | undefined, name: string, below: string): string {
  const root = process.env.SPR2Q_TEST_DATA;
  const found = option ?? (root ? join(root, below) : undefined);
  if (found) return found;
  throw new Spr2qError(
    "ERR_USAGE",
    `--measure needs --${name} DIR (or SPR2Q_TEST_DATA, a folder with ${below} in it).`,
  );
}

/** Rows whose label or cell has every word of `text`, as in "x2 4bit best". */
function filterOf(text: string): (label: string, spec: CellSpec) => boolean {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (label, { network, scale, bits, method }) => {
    const all = `${label} ${network} x${scale} ${bits}bit ${method}`.toLowerCase().split(/[\s,]+/);
    return words.every((word) => all.includes(word));
  };
}

function reportText({ label, spec, seed, outcome }: CellReport): string {
  const bits = spec.bits === 32 ? "" : ` ${spec.bits} bit`;
  const head = `${spec.network} x${spec.scale}${bits}, ${label}, seed ${seed}`;
  if (outcome.kind === "missing") return `${head}: not measured: ${outcome.why}`;
  const { cell, id } = outcome.stored;
  if (cell.failed) return `${head}: ${cell.failed} -> ${id}.json`;
  const scores = Object.entries(cell.readings).map(([how, sets]) => {
    const one = Object.entries(sets ?? {}).map(([name, { psnr }]) => `${name} ${psnr.toFixed(2)}`);
    return `${how}: ${one.join(", ")}`;
  });
  const state = outcome.kind === "kept" ? " (was there)" : "";
  return `${head}${state}: ${scores.join("; ")} dB in ${cell.seconds.toFixed(0)} s -> ${id}.json`;
}

function efficiencyText(outcome: Outcome): string {
  if (outcome.kind === "missing") return `Table 4: not measured: ${outcome.why}`;
  const { id, cell } = outcome.stored;
  const { milliseconds, ratio } = cell.figures ?? {};
  const text = `${milliseconds.toFixed(0)} ms, ${ratio.toFixed(2)}x`;
  return `Table 4, ${cell.bits} bit${outcome.kind === "kept" ? " (was there)" : ""}: ${text} -> ${id}.json`;
}

async function writeSheets(dir: string, sheets: readonly Sheet[]): Promise<void> {
  await ensureWritableDir(dir);
  for (const sheet of sheets) {
    const base = join(dir, `table-${sheet.name}`);
    await writeFileAtomic(`${base}.md`, Buffer.from(markdown(sheet)));
    await writeFileAtomic(`${base}.csv`, Buffer.from(csv(sheet)));
    await writeFileAtomic(`${base}.json`, Buffer.from(`${JSON.stringify(json(sheet), null, 1)}\n`));
  }
}

export const command = defineCommand({
  name: "tables",
  summary: "the paper's tables, published figures beside measured ones",
  usage: "[--table 1|2|3|4|5|6|controls ...] [--measure] [--budget B] [--out DIR]",
  options: [
    {
      name: "table",
      type: "choice",
      choices: TABLE_NAMES,
      multiple: true,
      help: "which table (default: all); may be given more than once",
    },
    { name: "measure", type: "boolean", help: "measure the cells that are missing, then print" },
    {
      name: "budget",
      type: "string",
      default: "common",
      value: "B",
      help: "training of a cell: common (100x4x32), full (the paper's), ITERATIONSxBATCHxPATCH, or MINUTESmin",
    },
    {
      name: "seeds",
      type: "integer",
      min: 1,
      max: 100,
      help: "seeds a cell is measured with (default: the table's own number)",
    },
    {
      name: "only",
      type: "string",
      value: "WORDS",
      help: 'measure rows with all these words, as in "x2 4bit best"',
    },
    {
      name: "results",
      type: "string",
      default: "bench/results",
      value: "DIR",
      help: "folder of the measured cells",
    },
    {
      name: "models",
      type: "string",
      default: "out/tables",
      value: "DIR",
      help: "folder for packed models and checkpoints",
    },
    {
      name: "weights",
      type: "string",
      value: "DIR",
      help: "folder of full-precision weights (default: weights of SPR2Q_TEST_DATA)",
    },
    {
      name: "weights-note",
      type: "string",
      value: "TEXT",
      help: "where those weights are from, written into every cell",
    },
    {
      name: "images",
      type: "string",
      value: "DIR",
      help: "folder of Set5, Set14, B100, Urban100, Manga109 (default: images there)",
    },
    {
      name: "train",
      type: "string",
      value: "DIR",
      help: "folder of training PNGs (default: images/Kodak24 there)",
    },
    {
      name: "format",
      type: "choice",
      choices: ["markdown", "csv"],
      default: "markdown",
      help: "what is printed; --json prints JSON",
    },
    {
      name: "out",
      type: "string",
      value: "DIR",
      help: "write table-T.md, .csv and .json there, and report.html",
    },
  ],
  async run(ctx) {
    const { options } = ctx;
    const names: readonly string[] = options.table.length ? options.table : TABLE_NAMES;
    const tables = QUALITY_TABLES.filter(({ name }) => names.includes(name));
    if (options.measure) await measure(ctx, tables, names.includes("4"), options);
    const cells = (await readCells(options.results)).map(({ cell }) => cell);
    const sheets = TABLE_NAMES.filter((name) => names.includes(name)).map((name) => {
      const table = tables.find((one) => one.name === name);
      return table ? qualitySheet(table, cells) : efficiencySheet(cells);
    });
    const form = options.format === "csv" ? csv : markdown;
    for (const sheet of sheets) ctx.out(form(sheet));
    if (options.out) {
      await writeSheets(options.out, sheets);
      const command = `spr2q tables --results ${options.results} --out ${options.out}`;
      const report = join(options.out, "report.html");
      await writeFileAtomic(report, Buffer.from(tablesReport(cells, command)));
    }
    ctx.result({ tables: sheets.map(json) });
  },
});

interface MeasureOptions {
  readonly budget: string;
  readonly seeds?: number;
  readonly only?: string;
  readonly results: string;
  readonly models: string;
  readonly weights?: string;
  readonly "weights-note"?: string;
  readonly images?: string;
  readonly train?: string;
}

async function measure(
  ctx: Pick<CommandContext, "signal" | "progress" | "out">,
  tables: readonly QualityTable[],
  withTable4: boolean,
  options: MeasureOptions,
): Promise<void> {
  const { signal, progress } = ctx;
  const shop = {
    weights: new WeightFolder(
      folderOf(options.weights, "weights", "weights"),
      options["weights-note"],
    ),
    images: folderOf(options.images, "images", "images"),
    train: folderOf(options.train, "train", join("images", "Kodak24")),
    results: options.results,
    models: options.models,
    budget: parseBudget(options.budget),
    version: packageVersion(),
    signal,
    onStep: (step: Parameters<typeof progress.update>[0]) => progress.update(step),
  };
  if (withTable4) {
    for (const outcome of await measureEfficiency(shop, await readCells(shop.results)))
      ctx.out(efficiencyText(outcome));
    progress.finish();
  }
  const choice = { seeds: options.seeds, only: filterOf(options.only ?? "") };
  for await (const report of fillTables(tables, shop, choice)) {
    progress.finish();
    ctx.out(reportText(report));
  }
}
