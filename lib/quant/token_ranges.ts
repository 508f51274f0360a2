/**
 * Ranges by token: one pair of bounds for each place that a token can have, its position in a window
 * or its rank in the scan's sequence. The codes of a token carry the bounds of its place, so a row of
 * the matrix has a scale of its own.
 */
import { type Graph, Var } from "../autograd.ts";
import type { I32 } from "../binding.ts";
import type { Grid } from "../ops.ts";
import { type Bounds, type Codes, quantize } from "./codes.ts";
import { RANK_BINS } from "./policy.ts";

/** The tokens of a pass, and the side of their windows. */
export interface TokenGrid extends Grid {
  readonly window: number;
}

/** How many ranges a site has. */
export const placesOf = (by: "window" | "rank", window: number): number =>
  by === "window" ? window * window : RANK_BINS;

/** Place of every token of the batch: raster order for "window", the scan's for "rank". */
export function tokenPlaces(by: "window" | "rank", grid: TokenGrid): I32 {
  const { batch, height, width, window } = grid;
  const tokens = height * width;
  const places = new Int32Array(batch * tokens);
  for (let i = 0; i < places.length; i++) {
    const t = i % tokens;
    places[i] =
      by === "rank"
        ? Math.floor((t * RANK_BINS) / tokens)
        : (Math.floor(t / width) % window) * window + ((t % width) % window);
  }
  return places;
}

/** values[places[i]] for every token; the gradient sums over the tokens of a place. */
function spread(g: Graph, values: Var, places: I32): Var {
  const each = Float32Array.from(places, (place) => values.data[place]);
  return g.record(new Var(each, [places.length]), [values], (gy) => {
    const sums = new Float64Array(values.size);
    places.forEach((place, i) => {
      sums[place] += gy[i];
    });
    const gradient = g.floats(values.size);
    gradient.set(sums);
    return [gradient];
  });
}

/** Codes of x (tokens, channels) under bounds by place; they carry the bounds of every row. */
export function tokenCodes(g: Graph, x: Var, { lower, upper, bits }: Bounds, places: I32): Codes {
  const rows: Bounds = {
    lower: spread(g, lower, places),
    upper: spread(g, upper, places),
    granularity: "row",
    bits,
  };
  return quantize(g, x, rows);
}
