/** What a quantised model file holds for each layer, in its order. */
import type { Architecture, CodedModule, NetworkConfig } from "../models/architecture.ts";
import { layerPrefixes, type Network } from "../models/network.ts";
import type { Granularity } from "./codes.ts";
import { inScope, type Policy } from "./policy.ts";
import type { QuantisedSites } from "./sites.ts";
import { placesOf } from "./token_ranges.ts";

/** A site's place in its layer's bounds tensor: granularity and number of values. */
export interface SiteSpec {
  readonly site: string;
  readonly granularity: Granularity;
  readonly joint: boolean;
  readonly lower: number;
  readonly upper: number;
}

/** Sites of one layer in file order, with the number of bounds each stores. */
export function siteOrder(net: Network, sites: QuantisedSites, prefix: string): SiteSpec[] {
  const { policy } = sites;
  const list = new Map<string, SiteSpec>();
  const put = (
    site: string,
    lower = 1,
    upper = 1,
    granularity: Granularity = "tensor",
    joint = false,
  ): void => {
    list.set(site, { site, granularity, joint, lower, upper });
  };
  for (const { name, tensor, kind } of codedModules(net.architecture, policy)) {
    const key = prefix + name;
    if (kind === "values") {
      put(`${key}.w`);
      continue;
    }
    const { shape, size } = net.get(prefix + tensor);
    const columns = kind === "depthwise" ? shape[0] : size / rowsOf(shape);
    const { granularity } = sites.inputKind(key);
    const by = policy.tokenRanges?.[name];
    const places = by ? placesOf(by, net.config.window) : 1;
    const lower = granularity === "column" ? columns : places;
    put(sites.inputSite(key), lower, places, granularity);
    const weight = sites.weightKind(key).granularity;
    const count = weight === "row" ? rowsOf(shape) : 1;
    put(`${key}.w`, count, count, weight);
  }
  for (const { name, joint, when } of net.architecture.extraSites) {
    const uniform = when === "uniform-probabilities";
    if (uniform && policy.leads.halfExponent) continue;
    if (!inScope(policy, { releasedOnly: when === "released" })) continue;
    put(prefix + name, 1, 1, "tensor", joint);
  }
  return [...list.values()];
}

/** Rows of a weight: its output channels; a leading axis of one is no row. */
export const rowsOf = (shape: readonly number[]): number => (shape[0] === 1 ? shape[1] : shape[0]);

/** Modules of a layer whose weight is stored as codes under `policy`. */
export function codedModules(architecture: Architecture, policy: Policy): CodedModule[] {
  return architecture.modules.filter((module) => inScope(policy, module));
}

/**
 * Names of the tensors that a packed file stores as codes under `policy`, and so are not rounded to
 * half precision; a joint projection counts as one tensor, as in checkpoints.
 */
export function codedTensors(
  architecture: Architecture,
  config: NetworkConfig,
  policy: Policy,
): Set<string> {
  const modules = codedModules(architecture, policy);
  const names = layerPrefixes(architecture, config).flatMap((prefix) =>
    modules.map(({ tensor }) => prefix + tensor.replace(/qkv\.[qkv]\./, "qkv.")),
  );
  return new Set(names);
}

/** Keys of the modules that carry rectifiers, layer by layer. */
export function rectifiedKeys(net: Network): string[] {
  const modules = net.architecture.modules.filter(({ rectified }) => rectified);
  return net.layerPrefixes.flatMap((prefix) => modules.map(({ name }) => prefix + name));
}
