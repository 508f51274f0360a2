/** The list of pictures: their names, scenes and sampling seeds. */
import type { Scene } from "./canvas.ts";
import { harbour } from "./harbour.ts";
import { page } from "./page.ts";
import { stillLife } from "./stilllife.ts";
import { wall } from "./wall.ts";

/** Width and height of every picture in pixels. */
export const PICTURE_SIZE = 192;

/** One picture of assets/images. */
export interface Picture {
  readonly name: string;
  readonly scene: Scene;
  /** Seed of the sample positions inside the pixels. */
  readonly seed: number;
}

/** All pictures, in the order of their files. */
export const PICTURES: readonly Picture[] = [
  { name: "harbour", scene: harbour, seed: 1 },
  { name: "page", scene: page, seed: 2 },
  { name: "still-life", scene: stillLife, seed: 3 },
  { name: "wall", scene: wall, seed: 4 },
];
