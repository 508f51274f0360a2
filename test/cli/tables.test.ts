/** `spr2q tables` on the command line: forms, files, and what it refuses. */
import { mkdir, mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { command } from "../../lib/cli/commands/tables.ts";
import { readCells } from "../../lib/tables/store.ts";
import { runCommand } from "./tiny_model.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "spr2q-tables-"));
});

test("without cells every row is published or not measured, and nothing is written", async () => {
  const results = join(root, "none");
  const { out } = await runCommand(command, ["--table", "6", "--results", results]);
  expect(out).toMatch(/\| SPR2Q, recipe paper \| published \| x2 \| 1 \| 34\.82\/\.9428 \|/);
  expect(out).toMatch(/\| SPR2Q, recipe best \| not measured \|/);
  expect(out).toContain("Manga109 (not present)");
  expect(out).not.toContain("Table 1:");
  await expect(readdir(results)).rejects.toMatchObject({ code: "ENOENT" });
});

test("all tables come in the paper's order, and --json has the same lines", async () => {
  const results = join(root, "none");
  const { out } = await runCommand(command, ["--results", results]);
  const heads = [...out.matchAll(/^## (Table \d|Controls)/gm)].map(([, name]) => name);
  const wanted = ["Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Controls"];
  expect(heads).toEqual(wanted);
  const printed = await runCommand(command, ["--results", results, "--json"]);
  const { tables } = JSON.parse(printed.out) as {
    tables: { table: string; lines: { source: string }[] }[];
  };
  expect(tables.map(({ table }) => table)).toEqual(["1", "2", "3", "4", "5", "6", "controls"]);
  const sources = new Set(tables.flatMap(({ lines }) => lines.map(({ source }) => source)));
  expect(sources).toEqual(new Set(["published", "not measured", "predicted"]));
});

test("--out writes the three forms of each table", async () => {
  const out = join(root, "written");
  await runCommand(command, ["--table", "3", "--out", out, "--results", join(root, "none")]);
  expect((await readdir(out)).sort()).toEqual([
    "report.html",
    "table-3.csv",
    "table-3.json",
    "table-3.md",
  ]);
  const csv = await readFile(join(out, "table-3.csv"), "utf8");
  expect(csv).toMatch(/^rank 16 \(recipe paper\),published,x2,4,37\.740,,,31\.700/m);
  expect(JSON.parse(await readFile(join(out, "table-3.json"), "utf8")).table).toBe("3");
});

test("--out plots quality against size and time of the cells that there are", async () => {
  const out = join(root, "plotted");
  const results = join(import.meta.dirname, "../../bench/results");
  await runCommand(command, ["--table", "6", "--out", out, "--results", results]);
  const html = await readFile(join(out, "report.html"), "utf8");
  const titles = [...html.matchAll(/<h3>(.*?)<\/h3>/g)].map(([, title]) => title);
  expect(titles).toEqual([
    "MambaIRv2-light x2: quality against size",
    "MambaIRv2-light x4: quality against size",
    "MambaIRv2-light x4: quality against time",
  ]);
  const [size, , time] = html.split("<h3>").slice(1);
  const labels = (plot: string) => [...plot.matchAll(/<title>(.*?):/g)].map(([, label]) => label);
  expect(labels(size)).toEqual(
    expect.arrayContaining(["best, 4 bit", "paper, 1 bit", "DOBI, 2 bit"]),
  );
  expect(labels(time)).toEqual(expect.arrayContaining(["full precision", "best, 4 bit"]));
  expect(labels(time)).not.toContain("DOBI, 4 bit");
  // The point that the cell of one method without training holds.
  const [dobi] = (await readCells(results)).filter(
    ({ cell }) => cell.method === "dobi" && cell.bits === 4 && cell.scale === 2,
  );
  expect(size).toContain(`DOBI, 4 bit: ${dobi.cell.readings.packed!.Set5.psnr.toFixed(2)} at `);
});

test("the sheets in the repository are those of its cells", async () => {
  const bench = join(import.meta.dirname, "../../bench");
  const out = join(root, "again");
  await runCommand(command, ["--results", join(bench, "results"), "--out", out]);
  const sheets = (await readdir(join(bench, "tables"))).filter((name) => name.endsWith(".md"));
  expect(sheets).toHaveLength(7);
  const fix = "run: spr2q tables --out bench/tables";
  for (const name of sheets) {
    const [kept, made] = [join(bench, "tables", name), join(out, name)];
    expect(await readFile(kept, "utf8"), fix).toBe(await readFile(made, "utf8"));
  }
});

test("a budget that is none, and folders that are missing, are refused before anything is measured", async () => {
  const results = join(root, "none");
  await mkdir(join(root, "empty"), { recursive: true });
  const dirs = ["--weights", "--images", "--train"].flatMap((name) => [name, join(root, "empty")]);
  const common = ["--table", "1", "--measure", "--results", results, ...dirs];
  const budget = await runCommand(command, [...common, "--budget", "much"]);
  expect(budget.code).toBe(2);
  expect(budget.err).toMatch(/ERR_USAGE: --budget: expected common, full, .* got "much"/);
  const nowhere = ["--table", "1", "--measure", "--weights", join(root, "nowhere")];
  const rest = ["--images", join(root, "empty"), "--train", join(root, "empty")];
  const only = ["--results", results, "--only", "x2 4bit minmax"];
  const folder = await runCommand(command, [...nowhere, ...rest, ...only]);
  expect(folder.code).toBe(1);
  expect(folder.err).toMatch(/ERR_IO: .*nowhere/);
});

test("rows that cannot be measured say why, one line each, and the table follows", async () => {
  const dirs = ["--weights", "--images", "--train"].flatMap((name) => [name, join(root, "empty")]);
  const { out } = await runCommand(command, [
    ...["--table", "5", "--measure", "--results", join(root, "none"), ...dirs],
    ...["--models", join(root, "models"), "--only", "best"],
  ]);
  expect(out).toMatch(
    /SwinIR-light x2 2 bit, SPR2Q, recipe best, seed 0: not measured: no full-precision SwinIR-light x2 weights/,
  );
  expect(out).toContain("## Table 5");
});
