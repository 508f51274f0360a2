/** Options that several commands share: how a network runs over an image. */
import { expected } from "../errors.ts";
import type { TileChoice } from "../infer/budget.ts";
import type { Tiling } from "../infer/tiles.ts";

/** CPU or GPU. */
export const deviceOption = {
  name: "device",
  type: "choice",
  choices: ["auto", "cpu", "cuda"],
  default: "auto",
  help: "where to run: auto is the GPU where spr2q doctor shows one",
} as const;

/** Noise and mode of the routing. */
export const routingOptions = [
  {
    name: "routing",
    type: "choice",
    choices: ["sampled", "argmax"],
    default: "sampled",
    help: "how tokens choose prompts",
  },
  {
    name: "seed",
    type: "integer",
    min: 0,
    max: 2147483647,
    default: 0,
    help: "seed of the sampled routing",
  },
] as const;

/** Least side of a tile in LR pixels: below it, overlap and window are all there is. */
const LEAST_TILE = 16;

/** Reads "none", "official" or a tile's side in LR pixels; ERR_USAGE otherwise. */
export function parseTiling(text: string, others = ""): Tiling {
  if (text === "none" || text === "official") return text;
  const side = Number(text);
  if (Number.isInteger(side) && side >= LEAST_TILE) return side;
  const wanted = `${others}none, official or a side of at least ${LEAST_TILE} pixels`;
  throw expected("ERR_USAGE", "--tile", wanted, `"${text}"`);
}

/** As {@link parseTiling}, or "auto". */
export function parseTile(text: string): TileChoice {
  return text === "auto" ? text : parseTiling(text, "auto, ");
}
