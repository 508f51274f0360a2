/** The test sets of the tables, and what of them a folder holds. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { listImages } from "../io/images.ts";

/** Names in the order of the paper's columns, with the number of images of the whole set. */
export const DATASETS = {
  Set5: 5,
  Set14: 14,
  B100: 100,
  Urban100: 100,
  Manga109: 109,
} as const;

export type DatasetName = keyof typeof DATASETS;

export const DATASET_NAMES: readonly DatasetName[] = Object.keys(DATASETS) as DatasetName[];

/** A set that was found. */
export interface Dataset {
  readonly name: DatasetName;
  readonly hr: string;
  /** Folder of the LR twins for the scale; undefined: they are made by MATLAB's bicubic. */
  readonly lr?: string;
  readonly images: number;
}

/** The sets below `dir` (NAME/HR, or PNGs in NAME itself; NAME/LR_bicubic/XS), for one scale. */
export async function findDatasets(dir: string, scale: number): Promise<Dataset[]> {
  const found: Dataset[] = [];
  for (const name of DATASET_NAMES) {
    const [below, itself] = [join(dir, name, "HR"), join(dir, name)];
    const hr = existsSync(below) ? below : itself;
    if (!existsSync(hr)) continue;
    const images = await listImages(hr).catch(() => []);
    if (images.length === 0) continue;
    const lr = join(dir, name, "LR_bicubic", `X${scale}`);
    found.push({ name, hr, images: images.length, ...(existsSync(lr) ? { lr } : {}) });
  }
  return found;
}

/** "Set14", or "B100 (10 of 100 images)" for a part of one. */
export function datasetText(name: DatasetName, images: number | undefined): string {
  if (images === undefined) return `${name} (not present)`;
  return images === DATASETS[name] ? name : `${name} (${images} of ${DATASETS[name]} images)`;
}
