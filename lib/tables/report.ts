/**
 * report.html of the tables: what each width costs in quality, against the size of its file and the
 * time of its plan. The sheets have every figure; the plots have what is compared most.
 */
import { renderReport, type ReportTable } from "../report/html.ts";
import type { Point, Scatter } from "../report/scatter.ts";
import { type Cell, type CellSpec, effortText, sameSpec } from "./cell.ts";
import { timedSpec } from "./efficiency.ts";
import { cellsOf } from "./table.ts";

const NETWORK = "MambaIRv2-light";
const SCALES = [2, 4] as const;
const WIDTHS = [4, 2, 1] as const;

/** A measured mean over seeds. */
interface Measured {
  readonly label: string;
  readonly spec: CellSpec;
  readonly psnr: number;
  /** Of the file; null for full precision, which is not packed. */
  readonly bytes: number | null;
  readonly budget: string;
  readonly series: number;
}

/** Mean on Set5 over the seeds of the least training that there is: the budget of all rows. */
function measured(
  label: string,
  spec: CellSpec,
  series: number,
  cells: readonly Cell[],
): Measured[] {
  const own = cells.filter((cell) => sameSpec(cell, spec) && cell.readings.packed?.Set5);
  if (own.length === 0) return [];
  const least = Math.min(...own.map(({ budget }) => budget.iterations));
  const same = own.filter(({ budget }) => budget.iterations === least);
  const sum = same.reduce((total, { readings }) => total + readings.packed!.Set5.psnr, 0);
  const [{ bytes, budget }] = same;
  const psnr = sum / same.length;
  return [{ label, spec, psnr, bytes, budget: effortText(budget), series }];
}

function measuredOf(scale: number, cells: readonly Cell[]): Measured[] {
  const make = cellsOf(NETWORK, scale);
  return [
    ...measured("full precision", make.full, 3, cells),
    ...WIDTHS.flatMap((bits) => [
      ...measured(`best, ${bits} bit`, make.spr2q(bits, "best", "best"), 0, cells),
      ...measured(`paper, ${bits} bit`, make.spr2q(bits, "paper", "released"), 1, cells),
      ...measured(`DOBI, ${bits} bit`, make.at(bits, "dobi"), 2, cells),
    ]),
  ];
}

const yLabel = "PSNR on Set5 (Y), dB";

function againstSize(scale: number, cells: readonly Cell[]): Scatter {
  const points = measuredOf(scale, cells).flatMap(({ label, bytes, psnr, series }): Point[] =>
    bytes === null ? [] : [{ label, x: bytes / 2 ** 20, y: psnr, series }],
  );
  return { title: `${NETWORK} x${scale}: quality against size`, xLabel: "MiB", yLabel, points };
}

/** Of the widths whose plans were timed (Table 4). */
function againstTime(scale: number, cells: readonly Cell[]): Scatter {
  const points = measuredOf(scale, cells).flatMap(({ label, spec, psnr, series }): Point[] => {
    if (series !== 0 && series !== 3) return []; // what runs is the same for all methods
    const plan = cells.find((cell) => sameSpec(cell, { ...timedSpec(spec.bits), scale }));
    const x = plan?.figures?.milliseconds;
    return x === undefined ? [] : [{ label, x, y: psnr, series }];
  });
  const xLabel = "milliseconds for 180x320 pixels";
  return { title: `${NETWORK} x${scale}: quality against time`, xLabel, yLabel, points };
}

function tableOf(cells: readonly Cell[]): ReportTable {
  const rows = SCALES.flatMap((scale) =>
    measuredOf(scale, cells).map(({ label, psnr, bytes, budget }) => [
      label,
      `x${scale}`,
      psnr.toFixed(2),
      bytes === null ? "" : (bytes / 2 ** 20).toFixed(3),
      budget,
    ]),
  );
  return { columns: ["row", "scale", "Set5, dB", "MiB", "RGT + OSRC x batch x patch"], rows };
}

/** The report as one HTML text, from the cells that exist; `command` makes it again. */
export function tablesReport(cells: readonly Cell[], command: string): string {
  const scatters = [
    ...SCALES.map((scale) => againstSize(scale, cells)),
    ...SCALES.map((scale) => againstTime(scale, cells)),
  ].filter(({ points }) => points.length > 0);
  return renderReport({
    title: "Quality against size and time",
    command,
    facts: [["cells", `${cells.length}`]],
    table: tableOf(cells),
    comparisons: [],
    curves: [],
    scatters,
  });
}
