/** What follows the question mark of POST /upscale. */
import { expected } from "../errors.ts";

/** How one image is to be enlarged. */
export interface Query {
  /** Name of the model; null: the server's first. */
  readonly model: string | null;
  /** Seed of sampled routing; undefined: the server's. */
  readonly seed: number | undefined;
  /** Rows are sent as they are made; else the answer is sent as a whole, with its times. */
  readonly stream: boolean;
}

const KEYS = ["model", "seed", "stream"];
const MAX_SEED = 2147483647;

/** ERR_ARGUMENT for unknown names, names given twice and values out of range. */
export function readQuery(params: URLSearchParams): Query {
  for (const key of params.keys()) {
    if (!KEYS.includes(key)) throw expected("ERR_ARGUMENT", "query", KEYS.join(", "), key);
    if (params.getAll(key).length > 1) throw expected("ERR_ARGUMENT", key, "one value", "several");
  }
  const seed = params.get("seed");
  if (seed !== null && !(/^\d{1,10}$/.test(seed) && Number(seed) <= MAX_SEED)) {
    throw expected("ERR_ARGUMENT", "seed", `an integer from 0 to ${MAX_SEED}`, `"${seed}"`);
  }
  const stream = params.get("stream") ?? "yes";
  if (stream !== "yes" && stream !== "no") {
    throw expected("ERR_ARGUMENT", "stream", "yes or no", `"${stream}"`);
  }
  return {
    model: params.get("model"),
    seed: seed === null ? undefined : Number(seed),
    stream: stream === "yes",
  };
}
