/**
 * A finished table as columns and lines, and its three forms: Markdown for people, CSV for
 * spreadsheets, JSON for programs. Every line says whether it was published, measured or predicted;
 * in Markdown measured figures are bold and predicted ones italic besides.
 */
import type { Quality } from "./table.ts";

/** Where a line's figures come from. */
export type Origin = "published" | "measured" | "predicted" | "not measured";

/** Quality of a measured line, with the deviation over seeds where there were several. */
export interface MeasuredQuality extends Quality {
  readonly deviation?: number;
}

/** A figure with the digits it is printed with. */
export interface Figure {
  readonly value: number;
  readonly digits: number;
}

export type Value = string | MeasuredQuality | Figure | null;

export interface Line {
  readonly origin: Origin;
  /** One value a column. */
  readonly values: readonly Value[];
}

export interface Sheet {
  readonly name: string;
  readonly title: string;
  readonly columns: readonly string[];
  readonly lines: readonly Line[];
  readonly notes: readonly string[];
}

const LEGEND =
  "Figures: plain = published, **bold** = measured here, *italic* = counted or predicted. " +
  "Quality is PSNR in dB / SSIM on Y.";

function isQuality(value: Value): value is MeasuredQuality {
  return typeof value === "object" && value !== null && "psnr" in value;
}

/** ".9589", as the papers print SSIM. */
const ssimText = (ssim: number): string => ssim.toFixed(4).replace(/^0/, "");

function text(value: Value): string {
  if (value === null) return "";
  if (typeof value === "string") return value;
  if (!isQuality(value)) return value.value.toFixed(value.digits);
  const spread = value.deviation === undefined ? "" : ` ± ${value.deviation.toFixed(2)}`;
  return `${value.psnr.toFixed(2)}${spread}${value.ssim === null ? "" : `/${ssimText(value.ssim)}`}`;
}

const MARKS: Readonly<Record<Origin, string>> = {
  published: "",
  measured: "**",
  predicted: "*",
  "not measured": "",
};

/** Markdown: title, table, notes. */
export function markdown(sheet: Sheet): string {
  const escaped = (one: string): string => one.replaceAll("|", "\\|");
  const row = (cells: readonly string[]): string => `| ${cells.map(escaped).join(" | ")} |`;
  const lines = sheet.lines.map(({ origin, values }) => {
    const mark = MARKS[origin];
    const cells = values.map((value) =>
      value !== null && typeof value !== "string" ? `${mark}${text(value)}${mark}` : text(value),
    );
    return row([cells[0], origin, ...cells.slice(1)]);
  });
  const [first, ...rest] = sheet.columns;
  const head = [first, "source", ...rest];
  return [
    `## ${sheet.title}`,
    "",
    row(head),
    `|${head.map(() => "---").join("|")}|`,
    ...lines,
    "",
    ...[LEGEND, ...sheet.notes].map((note) => `- ${note}`),
    "",
  ].join("\n");
}

function csvField(value: string): string {
  return /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

/** CSV with a header; a quality column becomes three: PSNR, its deviation, SSIM. */
export function csv(sheet: Sheet): string {
  const wide = sheet.columns.map((_, i) => sheet.lines.some(({ values }) => isQuality(values[i])));
  const head = sheet.columns.flatMap((column, i) => {
    if (!wide[i]) return i === 0 ? [column, "source"] : [column];
    return [`${column} PSNR`, `${column} PSNR deviation`, `${column} SSIM`];
  });
  const rows = sheet.lines.map(({ origin, values }) =>
    values.flatMap((value, i) => {
      if (wide[i]) {
        if (!isQuality(value)) return ["", "", ""];
        const { psnr, deviation, ssim } = value;
        return [psnr.toFixed(3), deviation?.toFixed(3) ?? "", ssim?.toFixed(5) ?? ""];
      }
      return i === 0 ? [text(value), origin] : [text(value)];
    }),
  );
  return `${[head, ...rows].map((row) => row.map(csvField).join(",")).join("\n")}\n`;
}

/** The sheet as an object of plain lines, keyed by column. */
export function json(sheet: Sheet): object {
  const lines = sheet.lines.map(({ origin, values }) => ({
    source: origin,
    ...Object.fromEntries(
      values.map((value, i) => [
        sheet.columns[i],
        value !== null && typeof value === "object" && !isQuality(value) ? value.value : value,
      ]),
    ),
  }));
  return { table: sheet.name, title: sheet.title, lines, notes: sheet.notes };
}
