/** Controls that the paper lacks, three seeds each: what the rectifiers and their gates are worth. */
import type { Reading, RunSettings } from "./cell.ts";
import { DATASET_NAMES, type DatasetName } from "./datasets.ts";
import { cellsOf, PLAIN_PATCHES, type QualityTable, type Row } from "./table.ts";

/** The paper's ablations use Set5 and Urban100; the controls take every set that there is. */
const DATASETS: readonly DatasetName[] = DATASET_NAMES.filter((name) => name !== "Manga109");

function rowsOf(scale: number, bits: number): Row[] {
  const cells = cellsOf("MambaIRv2-light", scale);
  const plain = bits <= 2 ? PLAIN_PATCHES : {};
  const row = (label: string, settings: RunSettings, reading: Reading = "packed"): Row => ({
    label,
    cell: cells.spr2q(bits, "best", "best", { ...plain, ...settings }),
    ...(reading === "packed" ? {} : { reading }),
  });
  return [
    row("four rectifiers of rank 8, sampled routing", {}),
    row("the same model, argmax routing", {}, "argmax"),
    row("bounds alone, equal iterations", { rectifiers: 0, osrc: "into-rgt" }),
    row("one rectifier of rank 32", { rectifiers: 1, rank: 32, osrc: "into-rgt" }),
    row("weights tuned directly", { tune: "weights", osrc: "into-rgt" }),
    row("uniform gates", { gate: "uniform", osrc: "into-rgt" }),
    row("dynamic gates, their mean packed", { gate: "dynamic" }),
    row("dynamic gates, each image its own (tape)", { gate: "dynamic" }, "own gates"),
    ...(bits <= 2
      ? [{ label: "four rectifiers, detailed patches", cell: cells.spr2q(bits, "best", "best") }]
      : []),
  ];
}

function floatRows(scale: number): Row[] {
  const { full: cell } = cellsOf("MambaIRv2-light", scale);
  return [
    { label: "full precision, sampled routing", cell },
    { label: "full precision, argmax routing", cell, reading: "argmax" },
  ];
}

export const CONTROLS: QualityTable = {
  name: "controls",
  title: "Controls: MambaIRv2-light x2, recipe best, three seeds",
  datasets: DATASETS,
  seeds: 3,
  notes: [
    "Rows without gates to calibrate train for RGT and OSRC steps together.",
    "Full precision: the seed is that of the routing noise; elsewhere that of training, with one noise.",
    "Every row takes plain patches but the last at 2 bit, which is recipe best (Table 1).",
    "A rectifier group of 4 x 8 and one rectifier of rank 32 span the same increments.",
  ],
  rows: [...floatRows(2), ...rowsOf(2, 4), ...rowsOf(2, 2)],
};
