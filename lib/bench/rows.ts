/**
 * The rows of a benchmark: two measured figures, their ratio, and the goals it is held to. `ratio`
 * is the peer's figure over ours, so larger is better; a floor that is missed fails the run.
 */
import { medianInterval, type Timing } from "./timing.ts";

/** What a ratio has to reach, and what would be better still. */
export interface Goal {
  readonly floor: number | null;
  readonly stretch: number | null;
  /**
   * The goal is "never slower", and both sides may run the same code, whose ratio is 1 give or take
   * the noise: the floor is missed only where the ratio's 95 % interval ends below it.
   */
  readonly neverSlower?: boolean;
}

/** One line of the table and one entry of `rows`. */
export interface Row {
  readonly name: string;
  /** Null where this side was not measured. */
  readonly ours: number | null;
  readonly peer: number | null;
  /** Unit of both, for example "ms" or "MiB". */
  readonly unit: string;
  readonly ratio: number | null;
  readonly floor: number | null;
  readonly stretch: number | null;
  /** What the peer is. */
  readonly against?: string;
  /** Least of the samples of which `ours` and `peer` are the medians. */
  readonly oursMin?: number;
  readonly peerMin?: number;
  /** Upper end of the ratio's 95 % interval, for a goal of "never slower". */
  readonly ratioUpTo?: number;
  /** Why the row has no ratio. */
  readonly skipped?: string;
  /** What a reader has to know about the figures. */
  readonly note?: string;
}

/** No goal: the row informs. */
export const NO_GOAL: Goal = { floor: null, stretch: null };

/** What a row says besides its figures. */
export interface RowText {
  readonly name: string;
  readonly against: string;
  readonly note?: string;
}

const MS = 1000;

/** A row of two timings, in milliseconds; the ratio is that of the medians. */
export function timeRow(text: RowText, ours: Timing, peer: Timing, goal: Goal = NO_GOAL): Row {
  return {
    ...valueRow(text, "ms", ours.median * MS, peer.median * MS, goal),
    oursMin: ours.min * MS,
    peerMin: peer.min * MS,
    ...(goal.neverSlower ? { ratioUpTo: medianInterval(ratiosOf(ours, peer))[1] } : {}),
  };
}

/** The ratio round by round: neighbours in time share the noise. */
function ratiosOf(ours: Timing, peer: Timing): number[] {
  return ours.samples.map((seconds, i) => peer.samples[i] / seconds);
}

/** A row of two figures of which less is better. */
export function valueRow(
  { name, against, note }: RowText,
  unit: string,
  ours: number,
  peer: number,
  goal: Goal = NO_GOAL,
): Row {
  return {
    name,
    ours,
    peer,
    unit,
    ratio: peer / ours,
    floor: goal.floor,
    stretch: goal.stretch,
    against,
    ...(note === undefined ? {} : { note }),
  };
}

/** A figure of ours that is compared with nothing. */
export function factRow(name: string, unit: string, ours: number, note?: string): Row {
  return {
    name,
    ours,
    peer: null,
    unit,
    ratio: null,
    floor: null,
    stretch: null,
    ...(note === undefined ? {} : { note }),
  };
}

/** A row whose peer (or whose own half) cannot run here; `reason` says why and what to do. */
export function skippedRow(
  { name, against, note }: RowText,
  reason: string,
  goal: Goal = NO_GOAL,
  ours?: Timing,
): Row {
  return {
    name,
    ours: ours ? ours.median * MS : null,
    peer: null,
    unit: "ms",
    ratio: null,
    floor: goal.floor,
    stretch: goal.stretch,
    against,
    ...(ours ? { oursMin: ours.min * MS } : {}),
    skipped: reason,
    ...(note === undefined ? {} : { note }),
  };
}

/** How a row stands: a NaN ratio counts as missed. */
export function verdict(row: Row): "skipped" | "fact" | "missed" | "floor" | "stretch" {
  if (row.skipped !== undefined) return "skipped";
  if (row.floor === null || row.ratio === null) return "fact";
  if (!(Math.max(row.ratio, row.ratioUpTo ?? row.ratio) >= row.floor)) return "missed";
  return row.stretch !== null && row.ratio >= row.stretch ? "stretch" : "floor";
}

/** The rows that fail the run. */
export function missedRows(rows: readonly Row[]): Row[] {
  return rows.filter((row) => verdict(row) === "missed");
}

/** Three significant digits, as many as a shared machine is good for. */
function figure(value: number | null): string {
  if (value === null) return "-";
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

const VERDICT_TEXT = {
  skipped: "skipped",
  fact: "",
  missed: "MISSED",
  floor: "ok",
  stretch: "stretch",
} as const;

/** The table for people: one line a row, reasons and notes below it. */
export function tableText(rows: readonly Row[]): string {
  const head = ["bench", "ours", "peer", "unit", "ratio", "floor", "stretch", ""];
  const cells = rows.map((row) => [
    row.against === undefined ? row.name : `${row.name} | ${row.against}`,
    figure(row.ours),
    figure(row.peer),
    row.unit,
    row.ratioUpTo === undefined
      ? figure(row.ratio)
      : `${figure(row.ratio)} (to ${figure(row.ratioUpTo)})`,
    figure(row.floor),
    figure(row.stretch),
    VERDICT_TEXT[verdict(row)],
  ]);
  const widths = head.map((text, i) =>
    Math.max(text.length, ...cells.map((line) => line[i].length)),
  );
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => (i === 0 || i === 3 ? text.padEnd(widths[i]) : text.padStart(widths[i])))
      .join("  ")
      .trimEnd();
  const lines = [line(head)];
  rows.forEach((row, i) => {
    lines.push(line(cells[i]));
    if (row.skipped !== undefined) lines.push(`    skipped: ${row.skipped}`);
    if (row.note !== undefined) lines.push(`    ${row.note}`);
  });
  return lines.join("\n");
}
