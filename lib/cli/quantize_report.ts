/** report.html of `spr2q quantize`: what was run, how it went and, with --test, what came of it. */
import { basename, join } from "node:path";
import { statSync } from "node:fs";
import { type Model, openModel } from "../infer/model.ts";
import type { QuantizeResult } from "../methods/quantize.ts";
import { methodNamed } from "../methods/registry.ts";
import { type Comparisons, compareOn } from "../report/comparison.ts";
import type { ReportTable } from "../report/html.ts";
import { writeRunReport } from "../report/run.ts";
import type { Scatter } from "../report/scatter.ts";
import { readEvents } from "../train/events.ts";
import type { Progress } from "./progress.ts";

/** What the report is about. */
export interface ReportedRun {
  readonly model: Model;
  readonly result: QuantizeResult;
  readonly out: string;
  readonly seed: number;
  /** The words behind "spr2q quantize" that make this run again. */
  readonly command: string;
  /** Folders of HR and LR test images. */
  readonly test?: string;
  readonly testLr?: string;
}

const mebibytes = (bytes: number): number => bytes / 2 ** 20;

function resultTable({ contenders }: Comparisons): ReportTable {
  return {
    columns: ["", "PSNR, dB", "SSIM", "file, MiB", "all images, s"],
    rows: contenders.map(({ label, psnr, ssim, bytes, seconds }) => [
      label,
      psnr.toFixed(2),
      ssim.toFixed(4),
      bytes === 0 ? "–" : mebibytes(bytes).toFixed(3),
      seconds.toFixed(1),
    ]),
  };
}

function scatters({ contenders, images }: Comparisons, folder: string): Scatter[] {
  const yLabel = `PSNR on Y, mean of ${images} images of ${folder}, dB`;
  const points = (x: (one: (typeof contenders)[number]) => number) =>
    contenders.map((one, series) => ({ label: one.label, x: x(one), y: one.psnr, series }));
  return [
    {
      title: "Quality against size",
      xLabel: "size of the file, MiB (logarithmic axis)",
      yLabel,
      points: points(({ bytes }) => mebibytes(bytes)),
    },
    {
      title: "Quality against time",
      xLabel: "seconds for all images on this machine (logarithmic axis)",
      yLabel,
      points: points(({ seconds }) => seconds),
    },
  ];
}

/** Name of a folder's set: of ".../Set5/HR" it is Set5. */
function setName(dir: string): string {
  const name = basename(dir);
  return name === "HR" ? basename(join(dir, "..")) : name;
}

/** Writes OUT/report.html and returns its path. */
export async function writeQuantizeReport(
  run: ReportedRun,
  signal: AbortSignal,
  progress: Progress,
): Promise<string> {
  const { model, result, out, test } = run;
  const { settings, bytes, seconds } = result;
  let compared: Comparisons | null = null;
  if (test) {
    const full = { label: "full precision", model, bytes: statSync(model.path).size };
    const packed = await openModel(result.model);
    const entrant = { label: `${settings.bits} bit`, model: packed, bytes };
    compared = await compareOn(test, run.testLr, full, entrant, {
      tiling: "none",
      routing: "sampled",
      seed: 0,
      signal,
      onProgress: (share) =>
        progress.update({ label: "comparing", done: Math.round(share * 100), total: 100 }),
    });
    progress.finish();
  }
  const { architecture, config } = model.net;
  const budget = `${settings.iterations} x ${settings.batch} x ${settings.patch}² LR pixels`;
  return writeRunReport(out, {
    title: `${architecture.title} x${config.scale} at ${settings.bits} bit`,
    command: `spr2q quantize ${run.command}`,
    facts: [
      ["method", methodNamed(`${settings.method}`).title],
      ["recipe", `${settings.recipe}`],
      ["scope", `${settings.scope}`],
      ["training", budget],
      ["seed", `${run.seed}`],
      ["packed file", `${mebibytes(bytes).toFixed(3)} MiB`],
      ["time", `${seconds.toFixed(0)} s`],
      ...(result.table ? [["gates kept", result.table.kept] as const] : []),
      ["weights, SHA-256", model.sha256.slice(0, 16)],
    ],
    events: readEvents(join(out, "log.jsonl")),
    table: result.table,
    ...(compared && test
      ? {
          results: resultTable(compared),
          comparisons: compared.crops,
          scatters: scatters(compared, setName(test)),
        }
      : {}),
  });
}
