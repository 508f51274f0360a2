/** report.html of a quantisation run: curves, routing table, and whatever pictures it is given. */
import { join } from "node:path";
import { writeFileAtomic } from "../io/files.ts";
import type { StateEvent, TrainEvent } from "../train/events.ts";
import type { RoutingTable } from "../train/method.ts";
import { type Comparison, renderReport, type ReportTable } from "./html.ts";
import type { Scatter } from "./scatter.ts";
import type { Curve, Series } from "./svg.ts";

export interface RunSummary {
  readonly title: string;
  readonly command: string;
  readonly events: readonly TrainEvent[];
  /** Null for methods without routing. */
  readonly table: RoutingTable | null;
  readonly facts?: readonly (readonly [string, string])[];
  readonly results?: ReportTable;
  readonly comparisons?: readonly Comparison[];
  readonly scatters?: readonly Scatter[];
}

/** Loss of each stage, and held-out quality where it was measured. */
function curvesOf(events: readonly TrainEvent[]): Curve[] {
  const curves: Curve[] = [];
  const stages = events.filter((e) => e.type === "stage").map((e) => e.stage);
  for (const stage of new Set(stages)) {
    const steps = events.filter((e) => e.type === "step" && e.stage === stage) as Extract<
      TrainEvent,
      { type: "step" }
    >[];
    if (steps.length < 2) continue;
    curves.push({
      title: `${stage.toUpperCase()}: loss`,
      x: steps.map((s) => s.iteration),
      series: [{ label: "loss", y: steps.map((s) => s.loss) }],
      xLabel: "iteration",
      yLabel: "mean |student - teacher| + features",
    });
  }
  const evals = events.filter((e) => e.type === "eval") as Extract<TrainEvent, { type: "eval" }>[];
  const held = evals.filter((e) => e.stage === stages[0]);
  if (held.length > 1) {
    curves.push({
      title: "Held-out crop",
      x: held.map((e) => e.iteration),
      series: [{ label: "PSNR (Y)", y: held.map((e) => e.psnr) }],
      xLabel: "iteration",
      yLabel: "dB",
    });
  }
  return curves;
}

const lossText = (loss: number | null): string => loss?.toPrecision(6) ?? "not run";

/** What OSRC did; nothing for methods without routing. */
function resultsOf(routing: RoutingTable | null): ReportTable {
  if (!routing) return { columns: [], rows: [] };
  const { kept, lossBefore, lossAfter } = routing;
  return {
    columns: ["gates kept", "loss before OSRC", "loss after"],
    rows: [[kept, lossText(lossBefore), lossText(lossAfter)]],
  };
}

const isWeight = (kind: string): boolean => /^(weights|prompt)/.test(kind);

/** Kinds of sites by plot: more lines than styles could not be told apart. */
const SITE_PLOTS: Readonly<Record<string, (kind: string) => boolean>> = {
  weights: isWeight,
  activations: (kind) => !isWeight(kind),
};

/** Median range of each kind of site, as a share of its first. */
function rangeSeries(states: readonly StateEvent[]): Series[] {
  const [first] = states;
  return Object.entries(first.ranges).map(([kind, start]) => ({
    label: kind,
    y: states.map(({ ranges }) => ranges[kind] / start),
  }));
}

/** Bounds and gates over the iterations of each stage. */
function stateCurves(events: readonly TrainEvent[]): Curve[] {
  const curves: Curve[] = [];
  const all = events.filter((e) => e.type === "state");
  for (const stage of new Set(all.map((e) => e.stage))) {
    const states = all.filter((e) => e.stage === stage);
    if (states.length < 2) continue;
    const x = states.map((e) => e.iteration);
    const name = stage.toUpperCase();
    const common = { x, xLabel: "iteration" };
    for (const [what, isWanted] of Object.entries(SITE_PLOTS)) {
      const series = rangeSeries(states).filter(({ label }) => isWanted(label));
      const moved = series.some(({ y }) => y.some((value) => Math.abs(value - 1) > 1e-6));
      const yLabel = "median range, as a share of the first";
      if (moved) curves.push({ ...common, title: `${name}: bounds of ${what}`, series, yLabel });
    }
    const gates = states.map(({ largestGate }) => largestGate);
    if (gates.some((gate) => gate === null)) continue;
    curves.push({
      ...common,
      title: `${name}: largest gate of a layer`,
      series: [
        { label: "greatest of all layers", y: gates.map((gate) => gate?.greatest ?? Number.NaN) },
        { label: "median layer", y: gates.map((gate) => gate?.median ?? Number.NaN) },
      ],
      yLabel: "share of the largest of a layer's gates",
    });
  }
  return curves;
}

/** Writes OUT/report.html. */
export async function writeRunReport(out: string, summary: RunSummary): Promise<string> {
  const { table: routing } = summary;
  const keys = Object.keys(routing?.layers ?? {});
  const gates = keys.map((key) => routing?.layers[key] ?? []);
  const html = renderReport({
    title: summary.title,
    command: summary.command,
    facts: summary.facts ?? [],
    table: summary.results ?? resultsOf(routing),
    comparisons: summary.comparisons ?? [],
    curves: [...curvesOf(summary.events), ...stateCurves(summary.events)],
    scatters: summary.scatters ?? [],
    ...(keys.length > 0 && gates[0].length > 0
      ? {
          heatMap: {
            title: "Routing table",
            rows: keys.map((key) =>
              key.replace(/layers\.(\d+)\.residual_group\.layers\.(\d+)\./, "$1.$2 "),
            ),
            columns: gates[0].map((_, i) => `rectifier ${i + 1}`),
            values: gates.map((row) => [...row]),
          },
        }
      : {}),
  });
  const path = join(out, "report.html");
  await writeFileAtomic(path, Buffer.from(html));
  return path;
}
