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
  const placed = new QuantisedSites(sites.policy, net.architecture);
  for (const [site, ends] of sites.bounds) placed.bounds.set(site, each(ends));
  for (const [key, { codes, shape, storageBits }] of sites.frozen) {
    const bounds = placed.bounds.get(`${key}.w`)!;
    placed.frozen.set(key, new Codes(memory.put(codes), shape, bounds, storageBits));
  }
  for (const [key, group] of sites.rectifiers) placed.rectifiers.set(key, each(group));
  for (const [key, rotation] of sites.rotations) placed.rotations.set(key, move(rotation));
  for (const [key, gate] of sites.gates) placed.gates.set(key, each(gate));
  for (const [key, increment] of sites.increments) placed.increments.set(key, each(increment));
  return placed;
}
