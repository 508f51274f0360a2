/**
 * Weights on their way to codes. A pass that is differentiated has those of all layers at once: one
 * call merges every group into its weight (Eq. 9), one codes every sum (Eq. 1), so that a step on the
 * GPU has a launch where layer by layer it had hundreds. Their gradients are two calls likewise.
 */
import type { Graph, Var } from "../autograd.ts";
import { readable } from "../device.ts";
import type { Network } from "../models/network.ts";
import { asMatrix } from "../models/sites.ts";
import * as ops from "../ops.ts";
import { type Codes, quantizeWeights } from "./codes.ts";
import { dynamicGates } from "./gate.ts";
import { codedModules } from "./layout.ts";
import { mergeAll, mergeRectifiers } from "./rectifier.ts";
import type { QuantisedSites } from "./sites.ts";

/**
 * The weight of a module with its rectifiers or its increment merged (Eq. 9), before quantisation; x:
 * the module's input, by which a dynamic gate mixes.
 */
export function mergedWeight(
  g: Graph,
  sites: QuantisedSites,
  key: string,
  weight: Var,
  x?: Var,
): Var {
  const increment = sites.increments.get(key);
  if (increment) return ops.add(g, weight, increment.value);
  const group = sites.rectifiers.get(key);
  if (!group) return weight;
  const gate = sites.gates.get(key);
  const mixed = gate && x ? dynamicGates(g, gate, x, sites.samples) : undefined;
  if (mixed && sites.gateTap) sites.gateTap(key, readable(mixed.data));
  return mergeRectifiers(g, weight, group, mixed);
}

/**
 * Codes by module key. Left out are weights that are frozen, soft, or mixed by what flows through
 * their layer: those are coded where they are used.
 */
export function codedWeights(
  g: Graph,
  net: Network,
  sites: QuantisedSites,
): ReadonlyMap<string, Codes> {
  const { bits } = sites.policy;
  const modules = codedModules(net.architecture, sites.policy).filter((m) => m.kind !== "values");
  const layers = net.layerPrefixes.flatMap((prefix) =>
    modules.flatMap(({ name, tensor }) => {
      const key = prefix + name;
      const bounds = sites.bounds.get(`${key}.w`);
      const elsewhere = [sites.frozen, sites.soft, sites.gates].some((map) => map.has(key));
      if (bounds?.bits !== bits || elsewhere) return [];
      const weight = net.get(prefix + tensor);
      return [{ key, bounds, weight: weight.shape.length === 3 ? asMatrix(weight) : weight }];
    }),
  );
  const grouped = layers.flatMap(({ key, weight }) => {
    const group = sites.rectifiers.get(key);
    return group ? [{ key, weight, group }] : [];
  });
  const merged = mergeAll(g, grouped);
  const sums = new Map(grouped.map(({ key }, i) => [key, merged[i]]));
  const weights = layers.map(({ key, weight, bounds }) => ({
    x: sums.get(key) ?? mergedWeight(g, sites, key, weight),
    bounds,
  }));
  const codes = quantizeWeights(g, weights, bits);
  return new Map(layers.map(({ key }, i) => [key, codes[i]]));
}
