/** Table 1: MambaIRv2-light at 4 and 2 bit, x2 and x4, against the baselines. */
import { DATASET_NAMES } from "./datasets.ts";
import {
  cellsOf,
  PLAIN_PATCHES,
  PLAIN_PATCHES_NOTE,
  published,
  type QualityTable,
  type Row,
} from "./table.ts";

const figures = (text: string) => published(text, DATASET_NAMES);

/** Published rows of one scale and width: the three baselines of the paper, and SPR2Q. */
type Figures = readonly [ptq4vm: string, quamba: string, mambaquant: string, spr2q: string];

const PAPER: Readonly<Record<string, Figures>> = {
  "x2 4": [
    "37.17 32.86 31.57 30.47 37.22",
    "37.07 32.77 31.47 30.54 36.94",
    "36.67 31.76 30.85 28.08 33.47",
    "37.72/.9589 33.27/.9156 31.94/.8964 31.53/.9223 38.03/.9754",
  ],
  "x2 2": [
    "34.38 31.05 30.21 27.61 32.04",
    "34.66 31.26 30.38 27.80 32.50",
    "34.65 31.22 30.36 27.78 32.43",
    "35.97/.9495 31.98/.9020 30.95/.8827 28.55/.8819 34.39/.9599",
  ],
  "x4 4": [
    "30.82 27.69 26.95 24.76 28.19",
    "31.01 27.77 26.99 25.01 28.57",
    "30.74 27.17 26.37 23.28 26.73",
    "31.60/.8844 28.27/.7725 27.33/.7274 25.64/.7713 29.60/.8959",
  ],
  "x4 2": [
    "28.77 26.36 26.16 23.37 25.26",
    "28.88 26.45 26.20 23.48 25.43",
    "28.84 26.41 26.18 23.45 25.38",
    "29.37/.8327 26.73/.7319 26.42/.6949 23.69/.6874 25.77/.8096",
  ],
};

function rowsOf(scale: number, bits: number): Row[] {
  const cells = cellsOf("MambaIRv2-light", scale);
  const [ptq4vm, quamba, mambaquant, spr2q] = PAPER[`x${scale} ${bits}`];
  return [
    { label: "SPR2Q, recipe best", cell: cells.spr2q(bits, "best", "best") },
    ...(bits <= 2
      ? [
          {
            label: "SPR2Q, recipe best, plain patches",
            cell: cells.spr2q(bits, "best", "best", PLAIN_PATCHES),
          },
        ]
      : []),
    {
      label: "SPR2Q, recipe paper",
      published: figures(spr2q),
      cell: cells.spr2q(bits, "paper", "released"),
    },
    { label: "SPR2Q, recipe released", cell: cells.spr2q(bits, "released", "released") },
    { label: "SPR2Q, recipe paper, scope table4", cell: cells.spr2q(bits, "paper", "table4") },
    {
      label: "SPR2Q, recipe released, scope table4",
      cell: cells.spr2q(bits, "released", "table4"),
    },
    { label: "2DQuant", cell: cells.at(bits, "2dquant") },
    { label: "DOBI", cell: cells.at(bits, "dobi") },
    { label: "percentile", cell: cells.at(bits, "percentile") },
    { label: "minmax", cell: cells.at(bits, "minmax") },
    { label: "PTQ4VM", published: figures(ptq4vm), cell: cells.at(bits, "ptq4vm") },
    { label: "Quamba", published: figures(quamba), cell: cells.at(bits, "quamba") },
    { label: "MambaQuant", published: figures(mambaquant), cell: cells.at(bits, "mambaquant") },
  ];
}

/** As MambaIRv2 published its light networks. */
const FULL = {
  2: "38.26/.9615 34.09/.9221 32.36/.9019 33.26/.9378 39.35/.9785",
  4: "32.51/.8992 28.84/.7878 27.75/.7426 26.82/.8079 31.24/.9182",
} as const;

/** The row of the network before it is quantised. */
export function fullRow(scale: 2 | 4): Row {
  return {
    label: "full precision",
    published: figures(FULL[scale]),
    publishedBy: "MambaIRv2",
    cell: cellsOf("MambaIRv2-light", scale).full,
  };
}

function floatRows(scale: 2 | 4, bicubic: string): Row[] {
  const row: Row = {
    label: "bicubic",
    published: figures(bicubic),
    publishedBy: "literature, luma alone",
    cell: cellsOf("MambaIRv2-light", scale).bicubic,
  };
  return [row, fullRow(scale)];
}

export const TABLE_1: QualityTable = {
  name: "1",
  title: "Table 1: MambaIRv2-light at 4 and 2 bit",
  datasets: DATASET_NAMES,
  seeds: 1,
  notes: [
    "The paper's baselines touch the Mamba module and have uniform quantisers elsewhere.",
    "Scope released: the sites of the authors' code; table4: those that Table 4 prices.",
    PLAIN_PATCHES_NOTE,
  ],
  rows: [
    ...floatRows(2, "33.66 - - - -"),
    ...rowsOf(2, 4),
    ...rowsOf(2, 2),
    ...floatRows(4, "28.42 - - - -"),
    ...rowsOf(4, 4),
    ...rowsOf(4, 2),
  ],
};
