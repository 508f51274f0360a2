/** Table 2: what each component adds, x2 at 4 bit, on Set5 and Urban100. */
import type { DatasetName } from "./datasets.ts";
import type { RunSettings } from "./cell.ts";
import { cellsOf, published, type QualityTable, type Row } from "./table.ts";

const DATASETS: readonly DatasetName[] = ["Set5", "Urban100"];
const figures = (text: string) => published(text, DATASETS);
const cells = cellsOf("MambaIRv2-light", 2);

/** The four steps with one recipe; the paper gives figures for its own. */
function steps(recipe: string, scope: string, texts?: readonly string[]): Row[] {
  const step = (label: string, i: number, settings: RunSettings): Row => ({
    label: `${label} (recipe ${recipe})`,
    ...(texts ? { published: figures(texts[i]) } : {}),
    cell: cells.spr2q(4, recipe, scope, settings),
  });
  return [
    step("bounds alone", 0, { rectifiers: 0, osrc: "into-rgt" }),
    step("+ PQFR: one rectifier", 1, { rectifiers: 1, osrc: "into-rgt" }),
    step("+ RGT: four rectifiers", 2, { osrc: false }),
    step("+ OSRC", 3, {}),
  ];
}

export const TABLE_2: QualityTable = {
  name: "2",
  title: "Table 2: components, MambaIRv2-light x2 at 4 bit",
  datasets: DATASETS,
  seeds: 1,
  notes: ["RGT without OSRC is run with the mean of its gates over the calibration patches."],
  rows: [
    ...steps("paper", "released", [
      "37.20/.9554 30.69/.9112",
      "37.44/.9567 31.25/.9188",
      "37.60/.9581 31.24/.9170",
      "37.72/.9589 31.53/.9223",
    ]),
    ...steps("best", "best"),
  ],
};
