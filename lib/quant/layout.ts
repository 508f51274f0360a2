/** What a quantised model file holds for each layer, in its order. */
import type { MambaIRv2 } from "../models/mambairv2.ts";
import { layerPrefix, type MambaConfig } from "../models/parameters.ts";
import type { Granularity } from "./codes.ts";
import { type Policy, quantisesScan } from "./policy.ts";
import type { QuantisedSites } from "./sites.ts";

/** Modules of a layer whose weight is stored as codes, with its tensor's name. */
const MODULES: readonly (readonly [string, string])[] = [
  ["wqkv.q", "wqkv.q.weight"],
  ["wqkv.k", "wqkv.k.weight"],
  ["wqkv.v", "wqkv.v.weight"],
  ["win_mhsa.proj", "win_mhsa.proj.weight"],
  ["convffn1.fc1", "convffn1.fc1.weight"],
  ["convffn1.sg.conv", "convffn1.sg.conv.weight"],
  ["convffn1.fc2", "convffn1.fc2.weight"],
  ["assm.route.0", "assm.route.0.weight"],
  ["assm.route.2", "assm.route.2.weight"],
  ["assm.in_proj.0", "assm.in_proj.0.weight"],
  ["assm.CPE.0", "assm.CPE.0.weight"],
  ["assm.embeddingB", "assm.embeddingB.weight"],
  ["embeddingA", "embeddingA.weight"],
  ["assm.selectiveScan.x_proj_weight", "assm.selectiveScan.x_proj_weight"],
  ["assm.selectiveScan.dt_projs_weight", "assm.selectiveScan.dt_projs_weight"],
  ["assm.out_proj", "assm.out_proj.weight"],
  ["convffn2.fc1", "convffn2.fc1.weight"],
  ["convffn2.sg.conv", "convffn2.sg.conv.weight"],
  ["convffn2.fc2", "convffn2.fc2.weight"],
];

/** Key prefixes of all layers. */
export function layerPrefixes(config: MambaConfig): string[] {
  return config.depths.flatMap((depth, group) =>
    Array.from({ length: depth }, (_, layer) => layerPrefix(group, layer)),
  );
}

/** A site's place in its layer's bounds tensor: granularity and number of values. */
export interface SiteSpec {
  readonly site: string;
  readonly granularity: Granularity;
  readonly joint: boolean;
  readonly lower: number;
  readonly upper: number;
}

/** Sites of one layer in file order, with the number of bounds each stores. */
export function siteOrder(net: MambaIRv2, sites: QuantisedSites, prefix: string): SiteSpec[] {
  const { policy } = sites;
  const list = new Map<string, SiteSpec>();
  const one = (site: string, joint = false): void => {
    list.set(prefix + site, {
      site: prefix + site,
      granularity: "tensor",
      joint,
      lower: 1,
      upper: 1,
    });
  };
  for (const [module, tensor] of codedModules(policy)) {
    const { shape } = net.get(prefix + tensor);
    if (!/embedding/.test(module)) {
      const key = prefix + module;
      const columns = /conv$|CPE/.test(module)
        ? shape[0]
        : net.get(prefix + tensor).size / rowsOf(shape);
      const { granularity } = sites.inputKind(key);
      const lower = granularity === "column" ? columns : 1;
      list.set(sites.inputSite(key), {
        site: sites.inputSite(key),
        granularity,
        joint: false,
        lower,
        upper: 1,
      });
      const weight = sites.weightKind().granularity;
      const count = weight === "row" ? rowsOf(shape) : 1;
      list.set(`${key}.w`, {
        site: `${key}.w`,
        granularity: weight,
        joint: false,
        lower: count,
        upper: count,
      });
    } else {
      one(`${module}.w`);
    }
  }
  for (const letter of ["q", "k", "v"]) one(`win_mhsa.${letter}`);
  if (!policy.leads.halfExponent) one("win_mhsa.p", true);
  one("assm.pool.x");
  if (quantisesScan(policy)) {
    for (const name of ["delta", "A", "B", "C", "bias"]) one(`assm.selectiveScan.${name}`);
    one("assm.selectiveScan.h", true);
  }
  return [...list.values()];
}

/** Rows of a weight: its output channels; a leading axis of one is no row. */
export const rowsOf = (shape: readonly number[]): number => (shape[0] === 1 ? shape[1] : shape[0]);

/** Modules and weight tensors that are stored as codes under `policy`. */
export function codedModules(policy: Policy): (readonly [string, string])[] {
  return MODULES.filter(([module]) => module !== "assm.CPE.0" || quantisesScan(policy));
}
