/** A table of quality as a sheet: each row's published line, then what was measured of it. */
import { type Cell, type CellSpec, effortText, type Reading, sameSpec } from "./cell.ts";
import { DATASETS, type DatasetName, datasetText } from "./datasets.ts";
import type { Line, MeasuredQuality, Sheet, Value } from "./sheet.ts";
import type { QualityTable, Row } from "./table.ts";

/** Cells of one row that differ in their seeds only, measured alike. */
interface Group {
  readonly cells: readonly Cell[];
  readonly reading: Reading;
}

const mean = (values: readonly number[]): number =>
  values.reduce((a, b) => a + b, 0) / values.length;

/** Standard deviation of a sample; undefined for one value. */
function deviation(values: readonly number[]): number | undefined {
  if (values.length < 2) return undefined;
  const centre = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

function groupsOf(row: Row, cells: readonly Cell[]): Group[] {
  const reading = row.reading ?? "packed";
  const groups = new Map<string, Cell[]>();
  for (const cell of cells) {
    if (!sameSpec(cell, row.cell) || !(cell.readings[reading] || cell.failed)) continue;
    const key = `${effortText(cell.budget)} ${cell.weights?.sha256} ${cell.version}`;
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  return [...groups.values()].map((found) => ({ cells: found, reading }));
}

function measuredQuality({ cells, reading }: Group, name: DatasetName): Value {
  const scores = cells.flatMap((cell) => cell.readings[reading]?.[name] ?? []);
  if (scores.length === 0) return cells.some(({ failed }) => failed) ? "diverged" : null;
  const psnrs = scores.map(({ psnr }) => psnr);
  const spread = deviation(psnrs);
  const quality: MeasuredQuality = {
    psnr: mean(psnrs),
    ssim: mean(scores.map(({ ssim }) => ssim)),
    ...(spread === undefined ? {} : { deviation: spread }),
  };
  return quality;
}

/** Set5 of the full-precision row of the same network and scale, as published; null for none. */
function publishedFull(table: QualityTable, { network, scale }: CellSpec): number | null {
  const row = table.rows.find(
    ({ cell }) =>
      cell.method === "full precision" && cell.network === network && cell.scale === scale,
  );
  return row?.published?.Set5?.psnr ?? null;
}

/** Set5 in full precision with the same weights, as measured; null for none. */
function measuredFull(cells: readonly Cell[], weights: Cell["weights"]): number | null {
  const scores = cells.flatMap((cell) => {
    const same = cell.method === "full precision" && cell.weights?.sha256 === weights?.sha256;
    return (same && cell.readings.packed?.Set5?.psnr) || [];
  });
  return scores.length === 0 ? null : mean(scores);
}

/** What a quantised row loses on Set5 against full precision, in dB. */
function dropValue(full: number | null, spec: CellSpec, psnr: number | undefined): Value {
  const known = full !== null && psnr !== undefined && spec.settings;
  return known ? { value: full - psnr, digits: 2 } : null;
}

/** "seed 0" or "seeds 0, 1, 2"; empty where nothing was drawn. */
function seedText(cells: readonly Cell[]): string {
  if (cells[0].method === "bicubic") return "";
  const seeds = cells.map(({ seed }) => seed).sort((a, b) => a - b);
  return seeds.join(", ");
}

/** "Kodak24, CPU …, 82 s": where and how long, for the group's first cell. */
function circumstances({ cells }: Group): [budget: string, seconds: Value, device: string] {
  const [first] = cells;
  if (!first.train) return ["none", null, first.device];
  const seconds = mean(cells.map((cell) => cell.seconds));
  const budget = `${effortText(first.budget)} on ${first.train.images} images of ${first.train.folder}`;
  return [budget, { value: seconds, digits: 0 }, first.device];
}

function linesOf(row: Row, table: QualityTable, cells: readonly Cell[]): Line[] {
  const lines: Line[] = [];
  const { scale, bits } = row.cell;
  const head = [row.label, `x${scale}`, bits === 32 ? "32" : `${bits}`];
  if (row.published) {
    const values = table.datasets.map((name) => row.published?.[name] ?? null);
    const drop = dropValue(publishedFull(table, row.cell), row.cell, row.published.Set5?.psnr);
    const tail = [drop, null, null, null, null, row.publishedBy ?? "SPR2Q", null];
    lines.push({ origin: "published", values: [...head, ...values, ...tail] });
  }
  const groups = groupsOf(row, cells);
  for (const group of groups) {
    const values = table.datasets.map((name) => measuredQuality(group, name));
    const [budget, seconds, device] = circumstances(group);
    const { weights, bytes } = group.cells[0];
    const size = bytes === null ? null : { value: bytes / 2 ** 20, digits: 3 };
    const source = weights
      ? `${weights.file} (${weights.what}; ${weights.sha256.slice(0, 8)})`
      : "";
    const set5 = measuredQuality(group, "Set5");
    const psnr =
      set5 !== null && typeof set5 === "object" && "psnr" in set5 ? set5.psnr : undefined;
    const drop = dropValue(measuredFull(cells, weights), row.cell, psnr);
    const tail = [drop, budget, seedText(group.cells), size, seconds, source, device];
    lines.push({ origin: "measured", values: [...head, ...values, ...tail] });
  }
  if (groups.length === 0) {
    const none = table.datasets.map(() => null);
    lines.push({
      origin: "not measured",
      values: [...head, ...none, null, null, null, null, null, null, null],
    });
  }
  return lines;
}

/** Number of images of each set that any cell was measured on. */
function imagesOf(name: DatasetName, cells: readonly Cell[]): number | undefined {
  const counts = cells.flatMap(({ readings }) =>
    Object.values(readings).flatMap((scores) => scores?.[name]?.images ?? []),
  );
  return counts.length === 0 ? undefined : Math.max(...counts);
}

/** The sheet of `table` from the cells that exist. */
export function qualitySheet(table: QualityTable, cells: readonly Cell[]): Sheet {
  const partial = table.datasets.filter((name) => {
    const images = imagesOf(name, cells);
    return images !== undefined && images < DATASETS[name];
  });
  const notes = [
    ...table.notes,
    "Budget: RGT + OSRC steps x patches a step x LR pixels a side. Seconds: quantising, wall clock.",
    ...(partial.length === 0
      ? []
      : [`Measured on a part only: ${partial.join(", ")}; published figures are for whole sets.`]),
  ];
  return {
    name: table.name,
    title: table.title,
    columns: [
      "method",
      "scale",
      "bits",
      ...table.datasets.map((name) => datasetText(name, imagesOf(name, cells))),
      "Set5 drop, dB",
      "budget",
      "seed",
      "MiB",
      "seconds",
      "weights, or whose figures",
      "device",
    ],
    lines: table.rows.flatMap((row) => linesOf(row, table, cells)),
    notes,
  };
}
