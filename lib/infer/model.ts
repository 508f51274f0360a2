/** Opens any model file: full precision (.pth, .safetensors) or quantised by this project. */
import { readWeights } from "../io/weights.ts";
import type { Network } from "../models/network.ts";
import { networkFrom } from "../models/registry.ts";
import { FloatSites, type Sites } from "../models/sites.ts";
import { isPacked, unpackModel } from "../quant/pack.ts";
import type { QuantisedSites } from "../quant/sites.ts";

/** A network ready to run, with what its file says about it. */
export interface Model {
  /** The file that it was read from. */
  readonly path: string;
  /** Architecture, configuration and weights; internal, for this version only. */
  readonly net: Network;
  /** What the inputs and weights of its layers pass through; internal, for this version only. */
  readonly sites: Sites;
  /** The same sites where the file is quantised, else null. */
  readonly quantised: QuantisedSites | null;
  /** The file's own entries (bits, recipe, seed, source, ...); empty for a .pth file. */
  readonly metadata: Readonly<Record<string, string>>;
  /** SHA-256 of the file's bytes, in hexadecimal. */
  readonly sha256: string;
  /** Names and bytes of the stored tensors, for size accounts. */
  readonly stored: ReadonlyMap<string, number>;
}

/**
 * Reads a model file; architecture, scale and bits come from it, never from a flag. Rejects with
 * ERR_ARCHITECTURE where its tensors are of no network known here, and as {@link readWeights}.
 */
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
