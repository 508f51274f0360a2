/** Sites by kind: what people want to know of a thousand quantisers. */
import { readable } from "../device.ts";
import type { Bounds } from "./codes.ts";

/** Widths of the quantisers of one kind of site: upper - lower bound, over all of them. */
export interface RangeSummary {
  readonly kind: string;
  readonly sites: number;
  /** Number of ranges: one a site, or one a row where bounds are per output channel. */
  readonly ranges: number;
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Kinds of sites by the end of their names, in the order in which they are shown. */
const KINDS: readonly (readonly [string, RegExp])[] = [
  ["weights of linear layers", /(?<!embeddingA|embeddingB|conv|CPE\.0)\.w$/],
  ["weights of depth-wise convolutions", /(conv|CPE\.0)\.w$/],
  ["prompt embeddings and pool", /embedding[AB]\.w$|pool\.x$/],
  ["inputs of depth-wise convolutions", /(conv|CPE\.0)\.x$/],
  ["inputs of x_proj and dt_proj", /(x_proj|dt_projs)_weight\.x$/],
  ["inputs of linear layers", /\.x$/],
  ["attention q, k, v", /(win_mhsa|attn)\.[qkv]$/],
  ["softmax probabilities", /(win_mhsa|attn)\.p$/],
  ["scan operands", /selectiveScan\.(delta|bias|A|B|C)$/],
  ["scan state", /selectiveScan\.h$/],
];

/** The kind of a site. */
function kindOf(site: string): string {
  return KINDS.find(([, pattern]) => pattern.test(site))?.[0] ?? "other sites";
}

function rangesOf({ lower, upper, granularity }: Bounds): number[] {
  const high = readable(upper.data);
  if (granularity === "column") return [high[0]];
  // A joint pair keeps lower and upper bound in one vector.
  if (lower === upper) return [high[1] - high[0]];
  const low = readable(lower.data);
  return [...high].map((end, i) => end - low[i]);
}

/** Least, middle and largest range of each kind of site that `bounds` has. */
export function summariseBounds(bounds: ReadonlyMap<string, Bounds>): RangeSummary[] {
  const found = new Map<string, { sites: number; ranges: number[] }>();
  for (const [site, pair] of bounds) {
    const kind = kindOf(site);
    const entry = found.get(kind) ?? { sites: 0, ranges: [] };
    entry.sites++;
    entry.ranges.push(...rangesOf(pair));
    found.set(kind, entry);
  }
  const order = [...KINDS.map(([kind]) => kind), "other sites"].filter((kind) => found.has(kind));
  return order.map((kind) => {
    const { sites, ranges } = found.get(kind) as { sites: number; ranges: number[] };
    const sorted = ranges.sort((a, b) => a - b);
    const half = sorted.length >> 1;
    const median = sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    return { kind, sites, ranges: sorted.length, min: sorted[0], median, max: sorted.at(-1)! };
  });
}
