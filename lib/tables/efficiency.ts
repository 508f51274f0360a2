/**
 * Table 4: size and cost of MambaIRv2-light x4 on 180x320 pixels. Sizes and MACs are counted (the
 * paper's "speed-up" is a price of MACs, n bits costing n/32); milliseconds and bytes on disk are
 * measured, full precision and all widths in one interleaved run.
 */
import { calibratedBytes, planOf, runnableOf, testPicture } from "../bench/models.ts";
import { busyBetween, othersBusySince } from "../bench/machine.ts";
import { interleave, type Side } from "../bench/timing.ts";
import { MAMBAIRV2 } from "../models/mambairv2.ts";
import type { Architecture } from "../models/architecture.ts";
import { countedInput, type Design, macAccount, sizeAccount } from "../quant/accounts.ts";
import { policyFor, type Scope } from "../quant/policy.ts";
import { CELL_FORMAT, type Cell, type CellSpec, cellId, NO_EFFORT, sameSpec } from "./cell.ts";
import { deviceText, type Outcome } from "./measure.ts";
import type { Figure, Line, Sheet } from "./sheet.ts";
import { type StoredCell, writeCell } from "./store.ts";
import type { Workshop } from "./workshop.ts";

const NETWORK = "MambaIRv2-light";
const SCALE = 4;
/** 32 is the float plan. */
const WIDTHS = [32, 4, 2, 1] as const;
/** Samples a side; fewer give no median worth quoting. */
const RUNS = 9;

/** Printed in the paper: MB (they are MiB), ratio, G MACs, ratio. */
const PAPER: Readonly<Record<number, readonly [number, number, number, number]>> = {
  32: [3.01, 1, 75.6, 1],
  4: [1.2, 2.51, 22.0, 3.44],
  2: [1.07, 2.81, 18.2, 4.15],
};

const figure = (value: number, digits: number): Figure => ({ value, digits });

/** The timed plan of one width; scope best is what this package serves. */
export function timedSpec(bits: number): CellSpec {
  return { network: NETWORK, scale: SCALE, bits, method: "plan", settings: { scope: "best" } };
}

function published(bits: number): Line[] {
  const found = PAPER[bits];
  if (!found) return [];
  const [size, sizeRatio, macs, macRatio] = found;
  const counted = [figure(size, 2), figure(sizeRatio, 2), figure(macs, 1), figure(macRatio, 2)];
  const head = [bits === 32 ? "full precision" : "SPR2Q", `${bits}`];
  return [{ origin: "published", values: [...head, ...counted, null, null, null, "SPR2Q"] }];
}

function counted(bits: number, scope: Scope): Line {
  const config = MAMBAIRV2.lightConfig(SCALE);
  const design: Design = { architecture: MAMBAIRV2 as Architecture, config };
  const policy = bits === 32 ? null : policyFor(scope, bits);
  const size = sizeAccount(design, policy);
  const macs = macAccount(design, policy);
  return {
    origin: "predicted",
    values: [
      bits === 32 ? "full precision" : `SPR2Q, scope ${scope}`,
      `${bits}`,
      figure(size.mebibytes, 4),
      figure(size.ratio, 3),
      figure(macs.priced / 1e9, 3),
      figure(macs.ratio, 3),
      null,
      null,
      null,
      "counted",
    ],
  };
}

function timed(bits: number, cells: readonly Cell[]): Line {
  const cell = cells.find((one) => sameSpec(one, timedSpec(bits)));
  const head = [bits === 32 ? "full precision" : "SPR2Q, scope best", `${bits}`];
  const none = [null, null, null, null];
  if (!cell?.figures) {
    return { origin: "not measured", values: [...head, ...none, null, null, null, null] };
  }
  const { milliseconds, ratio, othersBusy } = cell.figures;
  const busy = othersBusy === undefined ? "" : `, ${othersBusy.toFixed(1)} cores busy otherwise`;
  return {
    origin: "measured",
    values: [
      ...head,
      ...none,
      figure(milliseconds, 0),
      figure(ratio, 2),
      cell.bytes === null ? null : figure(cell.bytes / 2 ** 20, 3),
      `${cell.device}${busy}; ${cell.date}`,
    ],
  };
}

/** The table from the cells that exist. */
export function efficiencySheet(cells: readonly Cell[]): Sheet {
  const { width, height } = countedInput(SCALE);
  return {
    name: "4",
    title: `Table 4: size and cost, ${NETWORK} x${SCALE}, ${height}x${width} pixels`,
    columns: [
      "method",
      "bits",
      "MiB",
      "ratio",
      "G MACs",
      "price",
      "ms",
      "speed-up",
      "disk MiB",
      "how",
    ],
    lines: WIDTHS.flatMap((bits) => [
      ...published(bits),
      counted(bits, "table4"),
      ...(bits === 32 ? [] : [counted(bits, "best")]),
      timed(bits, cells),
    ]),
    notes: [
      "MiB and MACs: 4 bytes a float parameter, n/8 a quantised one; an n-bit MAC is n/32 of a float one.",
      "The paper's ratios are those of its rounded entries; its speed-up is the price of MACs, never timed.",
      "Scope best multiplies squares of half-exponent codes (2n bits), and is priced so.",
      `Milliseconds: medians of ${RUNS} runs, all widths in turn; speed-up over the own float plan.`,
    ],
  };
}

/** Times all widths in one interleaved run, unless each has its cell. */
export async function measureEfficiency(
  shop: Workshop,
  known: readonly StoredCell[],
): Promise<Outcome[]> {
  const found = await shop.weights.find(NETWORK, SCALE);
  if (!found) return [{ kind: "missing", why: `no full-precision ${NETWORK} x${SCALE} weights` }];
  const { model, source } = found;
  const ids = WIDTHS.map((bits) => cellId(timedSpec(bits), 0, "timed", source.sha256));
  const stored = ids.map((id) => known.find((one) => one.id === id));
  if (stored.every((one) => one !== undefined)) {
    return stored.map((one): Outcome => ({ kind: "kept", stored: one as StoredCell }));
  }
  const { width, height } = countedInput(SCALE);
  const image = testPicture(width, height);
  const packed: (Uint8Array | null)[] = [null];
  for (const bits of WIDTHS.slice(1)) packed.push(await calibratedBytes(model, bits));
  const sides = packed.map((bytes, i): Side => {
    const runnable = bytes ? runnableOf(bytes, `${WIDTHS[i]} bit`) : model;
    const plan = planOf(runnable, width, height);
    return { run: () => plan.run(image, shop.signal) };
  });
  shop.onStep({ label: "Table 4: timing", done: 0, total: WIDTHS.length });
  const before = othersBusySince();
  const timings = await interleave(sides, { runs: RUNS, signal: shop.signal });
  const busy = busyBetween(before, othersBusySince());
  const outcomes: Outcome[] = [];
  for (const [i, bits] of WIDTHS.entries()) {
    const milliseconds = timings[i].median * 1000;
    const ratio = timings[0].median / timings[i].median;
    const cell: Cell = {
      format: CELL_FORMAT,
      ...timedSpec(bits),
      seed: 0,
      budget: NO_EFFORT,
      weights: source,
      train: null,
      device: deviceText(),
      seconds: 0,
      cpuSeconds: 0,
      bytes: packed[i]?.length ?? null,
      readings: {},
      figures: { milliseconds, ratio, ...(busy === null ? {} : { othersBusy: busy }) },
      date: new Date().toISOString().slice(0, 10),
      version: shop.version,
    };
    const one = { id: ids[i], cell };
    await writeCell(shop.results, one);
    outcomes.push({ kind: "measured", stored: one });
  }
  return outcomes;
}
