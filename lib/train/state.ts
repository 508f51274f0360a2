/** What a student's bounds and gates are at the moment, in few numbers. */
import { gatesOf } from "../quant/rectifier.ts";
import { summariseBounds } from "../quant/site_kinds.ts";
import type { QuantisedSites } from "../quant/sites.ts";
import type { StateEvent } from "./events.ts";

/** Ranges and gates of `sites`, as a {@link StateEvent} tells them. */
export function stateOf(sites: QuantisedSites): Pick<StateEvent, "ranges" | "largestGate"> {
  const kinds = summariseBounds(sites.bounds).map(({ kind, median }) => [kind, median] as const);
  const static_ = sites.gates.size === 0 && sites.rectifiers.size > 0;
  const largest = [...sites.rectifiers.values()]
    .map((group) => Math.max(...gatesOf(group)))
    .sort((a, b) => a - b);
  return {
    ranges: Object.fromEntries(kinds),
    largestGate: static_
      ? { median: largest[largest.length >> 1], greatest: largest[largest.length - 1] }
      : null,
  };
}
