/** Opens any model file: full precision (.pth, .safetensors) or quantised by this project. */
import { readWeights } from "../io/weights.ts";
import type { Network } from "../models/network.ts";
import { networkFrom } from "../models/registry.ts";
import { FloatSites, type Sites } from "../models/sites.ts";
import { isPacked, unpackModel } from "../quant/pack.ts";
import type { QuantisedSites } from "../quant/sites.ts";

/** A network ready to run, with what its file says about it. */
export interface Model {
  readonly path: string;
  readonly net: Network;
  readonly sites: Sites;
  /** The same sites where the file is quantised, else null. */
  readonly quantised: QuantisedSites | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly sha256: string;
  /** Names and bytes of the stored tensors, for size accounts. */
  readonly stored: ReadonlyMap<string, number>;
}

/** Reads a model file; architecture, scale and bits come from it, never from a flag. */
export async function openModel(path: string): Promise<Model> {
  const { tensors, metadata, sha256 } = await readWeights(path);
  const stored = new Map([...tensors].map(([name, tensor]) => [name, tensor.data.byteLength]));
  const common = { path, metadata, sha256, stored };
  if (isPacked(metadata)) {
    const { net, sites } = unpackModel(tensors, metadata, path);
    return { ...common, net, sites, quantised: sites };
  }
  const net = networkFrom(tensors, path);
  return { ...common, net, sites: new FloatSites(), quantised: null };
}
