/**
 * What a table of the paper is made of: rows with the published figures (facts, typed off the
 * papers) and the cell that measures the same thing here. Each table is a file of such rows.
 */
import type { CellSpec, NetworkName, Reading, RunSettings } from "./cell.ts";
import type { DatasetName } from "./datasets.ts";

/** Quality as printed: PSNR in dB, SSIM where it was given. */
export interface Quality {
  readonly psnr: number;
  readonly ssim: number | null;
}

/** Published scores by data set. */
export type Published = Readonly<Partial<Record<DatasetName, Quality>>>;

/** One row; a row without a cell cannot be measured here, one without `published` is our own. */
export interface Row {
  readonly label: string;
  readonly cell: CellSpec;
  readonly published?: Published;
  /** Whose figure it is, where it is not the SPR2Q paper's. */
  readonly publishedBy?: string;
  /** How the measured result is run; "packed" where left out. */
  readonly reading?: Reading;
}

/** A table of quality. */
export interface QualityTable {
  readonly name: string;
  readonly title: string;
  readonly datasets: readonly DatasetName[];
  /** Seeds 0 .. seeds - 1 are measured. */
  readonly seeds: number;
  readonly notes: readonly string[];
  readonly rows: readonly Row[];
}

/** "37.72/.9589 33.27/.9156 - ..." for the data sets in their order; "-" where nothing is given. */
export function published(text: string, datasets: readonly DatasetName[]): Published {
  const words = text.trim().split(/\s+/);
  const known = words.flatMap((word, i): [DatasetName, Quality][] => {
    if (word === "-") return [];
    const [psnr, ssim] = word.split("/").map(Number);
    return [[datasets[i], { psnr, ssim: ssim ?? null }]];
  });
  return Object.fromEntries(known);
}

/** The setting of rows in which a patch is taken where the first draw falls, at every width. */
export const PLAIN_PATCHES: RunSettings = { candidates: 1 };
export const PLAIN_PATCHES_NOTE =
  "Recipe best takes the most detailed of four places for each patch at 2 and 1 bit; plain patches: the first.";

/** Makes specs of one network and scale. */
export function cellsOf(network: NetworkName, scale: number): CellMaker {
  return {
    bicubic: { network, scale, bits: 32, method: "bicubic" },
    full: { network, scale, bits: 32, method: "full precision" },
    at: (bits, method, settings = {}) => ({ network, scale, bits, method, settings }),
    spr2q: (bits, recipe, scope, settings = {}) => ({
      network,
      scale,
      bits,
      method: "spr2q",
      settings: { recipe, scope, ...settings },
    }),
  };
}

/** See {@link cellsOf}. */
export interface CellMaker {
  readonly bicubic: CellSpec;
  readonly full: CellSpec;
  at(bits: number, method: string, settings?: RunSettings): CellSpec;
  spr2q(bits: number, recipe: string, scope: string, settings?: RunSettings): CellSpec;
}
