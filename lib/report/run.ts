/** report.html of a quantisation run: curves, routing table, and whatever pictures it is given. */
import { join } from "node:path";
import { writeFileAtomic } from "../io/files.ts";
import type { TrainEvent } from "../train/events.ts";
import type { RoutingTable } from "../train/method.ts";
import { type Comparison, renderReport, type ReportTable } from "./html.ts";
import type { Curve } from "./svg.ts";

export interface RunSummary {
  readonly title: string;
  readonly command: string;
  readonly events: readonly TrainEvent[];
  /** Null for methods without routing. */
  readonly table: RoutingTable | null;
  readonly facts?: readonly (readonly [string, string])[];
  readonly results?: ReportTable;
  readonly comparisons?: readonly Comparison[];
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

/** What OSRC did; nothing for methods without routing. */
function resultsOf(routing: RoutingTable | null): ReportTable {
  if (!routing) return { columns: [], rows: [] };
  const { kept, lossBefore, lossAfter } = routing;
  return {
    columns: ["gates kept", "loss before OSRC", "loss after"],
    rows: [[kept, `${lossBefore ?? "not run"}`, `${lossAfter ?? "not run"}`]],
  };
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
    curves: curvesOf(summary.events),
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
