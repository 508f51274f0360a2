/** Table 6: MambaIRv2-light at 1 bit. */
import { DATASET_NAMES } from "./datasets.ts";
import {
  cellsOf,
  PLAIN_PATCHES,
  PLAIN_PATCHES_NOTE,
  published,
  type QualityTable,
  type Row,
} from "./table.ts";
import { fullRow } from "./table1.ts";

function rowsOf(scale: 2 | 4, spr2q: string): Row[] {
  const cells = cellsOf("MambaIRv2-light", scale);
  return [
    fullRow(scale),
    { label: "SPR2Q, recipe best", cell: cells.spr2q(1, "best", "best") },
    {
      label: "SPR2Q, recipe best, plain patches",
      cell: cells.spr2q(1, "best", "best", PLAIN_PATCHES),
    },
    {
      label: "SPR2Q, recipe paper",
      published: published(spr2q, DATASET_NAMES),
      cell: cells.spr2q(1, "paper", "released"),
    },
    { label: "SPR2Q, recipe released", cell: cells.spr2q(1, "released", "released") },
    { label: "SPR2Q, recipe paper, scope table4", cell: cells.spr2q(1, "paper", "table4") },
    { label: "SPR2Q, recipe released, scope table4", cell: cells.spr2q(1, "released", "table4") },
    { label: "2DQuant", cell: cells.at(1, "2dquant") },
    { label: "DOBI", cell: cells.at(1, "dobi") },
    { label: "minmax", cell: cells.at(1, "minmax") },
  ];
}

export const TABLE_6: QualityTable = {
  name: "6",
  title: "Table 6: MambaIRv2-light at 1 bit",
  datasets: DATASET_NAMES,
  seeds: 1,
  notes: [PLAIN_PATCHES_NOTE],
  rows: [
    ...rowsOf(2, "34.82/.9428 31.27/.8956 30.41/.8754 27.76/.8690 32.38/.9505"),
    ...rowsOf(4, "28.84/.8213 26.41/.7215 26.21/.6852 23.41/.6751 25.31/.7995"),
  ],
};
