/** Where a quantised network's tensors lie: the same sites over another memory. */
import { Var } from "../autograd.ts";
import type { Network } from "../models/network.ts";
import type { Memory } from "../tensor.ts";
import { Codes } from "./codes.ts";
import { QuantisedSites } from "./sites.ts";

/** The sites of a network with their tensors in `memory`: themselves where host memory will do. */
export function sitesOn(
  { net, sites }: { readonly net: Network; readonly sites: QuantisedSites },
  memory: Memory,
): QuantisedSites {
  if (!memory.onDevice) return sites;
  const moved = new Map<Var, Var>();
  const move = (v: Var): Var => {
    // Lower and upper bound may be one tensor, and codes share the bounds of their site.
    if (!moved.has(v)) moved.set(v, new Var(memory.put(v.data), v.shape, v.requiresGrad));
    return moved.get(v)!;
  };
  const each = <T extends object>(parts: T): T => {
    const entries = Object.entries(parts).map(([name, part]) => [
      name,
      part instanceof Var ? move(part) : part,
    ]);
    return Object.fromEntries(entries) as T;
  };
  const bounds = new Map([...sites.bounds].map(([site, ends]) => [site, each(ends)]));
  const frozen = [...sites.frozen].map(([key, { codes, shape, storageBits }]): [string, Codes] => [
    key,
    new Codes(memory.put(codes), shape, bounds.get(`${key}.w`)!, storageBits),
  ]);
  const groups = new Map([...sites.rectifiers].map(([key, group]) => [key, each(group)]));
  const placed = new QuantisedSites(
    sites.policy,
    net.architecture,
    bounds,
    groups,
    new Map(frozen),
  );
  for (const [key, gate] of sites.gates) placed.gates.set(key, each(gate));
  for (const [key, increment] of sites.increments) placed.increments.set(key, each(increment));
  return placed;
}
