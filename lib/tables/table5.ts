/** Table 5: SwinIR-light x2 at 2 bit. */
import { DATASET_NAMES } from "./datasets.ts";
import {
  cellsOf,
  PLAIN_PATCHES,
  PLAIN_PATCHES_NOTE,
  published,
  type QualityTable,
} from "./table.ts";

const figures = (text: string) => published(text, DATASET_NAMES);
const cells = cellsOf("SwinIR-light", 2);

export const TABLE_5: QualityTable = {
  name: "5",
  title: "Table 5: SwinIR-light x2 at 2 bit",
  datasets: DATASET_NAMES,
  seeds: 1,
  notes: [
    "A measured row is to be judged by its drop from the full-precision row of the same weights.",
    PLAIN_PATCHES_NOTE,
  ],
  rows: [
    { label: "bicubic", cell: cells.bicubic },
    {
      label: "full precision",
      published: figures("38.14/.9611 33.86/.9206 32.31/.9012 32.76/.9340 39.12/.9783"),
      publishedBy: "SwinIR",
      cell: cells.full,
    },
    { label: "SPR2Q, recipe best", cell: cells.spr2q(2, "best", "best") },
    {
      label: "SPR2Q, recipe best, plain patches",
      cell: cells.spr2q(2, "best", "best", PLAIN_PATCHES),
    },
    {
      label: "SPR2Q, recipe paper",
      published: figures("37.28/.9572 32.83/.9113 31.63/.8921 30.20/.9077 37.08/.9726"),
      cell: cells.spr2q(2, "paper", "released"),
    },
    { label: "SPR2Q, recipe released", cell: cells.spr2q(2, "released", "released") },
    {
      label: "CondiQuant",
      published: figures("37.15 32.74 31.55 29.96 36.63"),
      publishedBy: "CondiQuant",
      cell: cells.at(2, "condiquant"),
    },
    {
      label: "APHQ-ViT",
      published: figures("36.14/.9517 32.14/.9049 31.04/.8850 28.86/.8885 34.99/.9644"),
      cell: cells.at(2, "aphq-vit"),
    },
    {
      label: "FIMA-Q",
      published: figures("36.06/.9515 32.10/.9048 31.01/.8848 28.77/.8873 34.75/.9638"),
      cell: cells.at(2, "fima-q"),
    },
    {
      label: "2DQuant",
      published: figures("36.00/.9497 31.98/.9012 30.91/.8810 28.62/.8819 34.40/.9602"),
      cell: cells.at(2, "2dquant"),
    },
    { label: "DBDC+PaC", cell: cells.at(2, "dbdc-pac") },
    { label: "DOBI", cell: cells.at(2, "dobi") },
    { label: "minmax", cell: cells.at(2, "minmax") },
  ],
};
