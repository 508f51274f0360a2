/**
 * One model for all threads of a process: its weights, bounds and codes in SharedArrayBuffers, which
 * a message to a worker carries over without a copy. What plans make of them is shared by the native
 * half (native/core/constants.hpp).
 */
import { Var } from "../autograd.ts";
import { type F32, native, type U8 } from "../binding.ts";
import { expected } from "../errors.ts";
import type { NetworkConfig } from "../models/architecture.ts";
import { Network } from "../models/network.ts";
import { architectureNamed } from "../models/registry.ts";
import { FloatSites } from "../models/sites.ts";
import { type Bounds, Codes, type Granularity } from "../quant/codes.ts";
import type { Policy } from "../quant/policy.ts";
import { QuantisedSites } from "../quant/sites.ts";
import type { Model } from "./model.ts";

/** A tensor over shared memory; what a Var holds. */
interface SharedTensor {
  readonly data: Float32Array<SharedArrayBuffer>;
  readonly shape: readonly number[];
}

interface SharedBounds {
  readonly lower: SharedTensor;
  /** Null where one vector serves as both. */
  readonly upper: SharedTensor | null;
  readonly granularity: Granularity;
  readonly bits: number;
}

interface SharedCodes {
  readonly codes: Uint8Array<SharedArrayBuffer>;
  readonly shape: readonly number[];
  readonly storageBits: number;
}

/**
 * A model that can be posted to any thread of this process and loaded there by
 * {@link Upscaler.load}. Its contents are for this version of spr2q only.
 */
export interface SharedModel {
  /** Tells it from other messages. */
  readonly kind: "spr2q-shared-model";
  /** The file that the model was read from. */
  readonly path: string;
  /** The file's own entries; empty for a .pth file. */
  readonly metadata: Readonly<Record<string, string>>;
  /** SHA-256 of the file's bytes, in hexadecimal. */
  readonly sha256: string;
  /** Names and bytes of the stored tensors. */
  readonly stored: ReadonlyMap<string, number>;
  /** Bytes of all weights, bounds and codes. */
  readonly bytes: number;
  /** Name of the network's family. */
  readonly architecture: string;
  /** Its sizes. */
  readonly config: NetworkConfig;
  /** Tensors of the network by name, over shared memory. */
  readonly weights: ReadonlyMap<string, SharedTensor>;
  /** Bounds, codes and rotations by site, and the policy they belong to; null at full precision. */
  readonly quantised: {
    /** Bits, scope and kinds of bounds. */
    readonly policy: Policy;
    /** Bounds of each quantised site. */
    readonly bounds: ReadonlyMap<string, SharedBounds>;
    /** Packed codes of each quantised weight. */
    readonly codes: ReadonlyMap<string, SharedCodes>;
    /** Orthonormal matrices of the sites whose inputs are turned. */
    readonly rotations: ReadonlyMap<string, SharedTensor>;
  } | null;
}

/** Tells it from a path. */
export function isShared(source: string | SharedModel): source is SharedModel {
  return typeof source === "object" && source?.kind === "spr2q-shared-model";
}

const known = new WeakMap<Model, SharedModel>();
/** Shared memory is no isolate's, so the garbage collector has to be told of it. */
const gone = new FinalizationRegistry<number>((bytes) => void native().adjustMemory(-bytes));

/** `model` in shared memory; the same object for every call with the same model. */
export function shareModel(model: Model): SharedModel {
  const before = known.get(model);
  if (before) return before;
  const moved = new Map<ArrayBufferLike, SharedArrayBuffer>();
  let bytes = 0;
  const move = (buffer: ArrayBufferLike): SharedArrayBuffer => {
    const there = moved.get(buffer);
    if (there) return there;
    const shared = new SharedArrayBuffer(buffer.byteLength);
    new Uint8Array(shared).set(new Uint8Array(buffer));
    bytes += buffer.byteLength;
    moved.set(buffer, shared);
    return shared;
  };
  const tensor = ({ data, shape }: Var): SharedTensor => ({
    data: new Float32Array(move(data.buffer), data.byteOffset, data.length),
    shape,
  });
  const { net, quantised } = model;
  const weights = new Map([...net.weights].map(([name, weight]) => [name, tensor(weight)]));
  const sites = quantised && {
    policy: quantised.policy,
    bounds: new Map(
      [...quantised.bounds].map(([site, { lower, upper, granularity, bits }]) => [
        site,
        { lower: tensor(lower), upper: upper === lower ? null : tensor(upper), granularity, bits },
      ]),
    ),
    codes: new Map(
      [...quantised.frozen].map(([key, { codes, shape, storageBits }]) => {
        const view = new Uint8Array(move(codes.buffer), codes.byteOffset, codes.length);
        return [key, { codes: view, shape, storageBits }];
      }),
    ),
    rotations: new Map([...quantised.rotations].map(([key, turned]) => [key, tensor(turned)])),
  };
  const shared: SharedModel = {
    kind: "spr2q-shared-model",
    path: model.path,
    metadata: model.metadata,
    sha256: model.sha256,
    stored: model.stored,
    bytes,
    architecture: net.architecture.name,
    config: net.config,
    weights,
    quantised: sites,
  };
  native().adjustMemory(bytes);
  gone.register(shared, bytes);
  known.set(model, shared);
  return shared;
}

/** The model over the same memory. ERR_ARGUMENT for what another version of spr2q shared. */
export function openShared(shared: SharedModel): Model {
  const architecture = architectureNamed(shared.architecture);
  if (!architecture || !(shared.weights instanceof Map)) {
    const fix = "Share and load with the same version of spr2q.";
    throw expected("ERR_ARGUMENT", "shared model", "what share() gave", "something else", fix);
  }
  // Typed arrays over shared memory do as operands: nothing writes to a model's weights.
  const variable = ({ data, shape }: SharedTensor): Var => new Var(data as unknown as F32, shape);
  const weights = new Map([...shared.weights].map(([name, weight]) => [name, variable(weight)]));
  const net = new Network(architecture, shared.config, weights);
  const { path, metadata, sha256, stored } = shared;
  const common = { path, metadata, sha256, stored, net };
  const model: Model = shared.quantised
    ? { ...common, ...quantisedSites(net, shared.quantised, variable) }
    : { ...common, sites: new FloatSites(), quantised: null };
  known.set(model, shared);
  return model;
}

function quantisedSites(
  net: Network,
  { policy, bounds, codes, rotations }: NonNullable<SharedModel["quantised"]>,
  variable: (tensor: SharedTensor) => Var,
): { readonly sites: QuantisedSites; readonly quantised: QuantisedSites } {
  const sites = new QuantisedSites(policy, net.architecture);
  for (const [site, { lower, upper, granularity, bits }] of bounds) {
    const low = variable(lower);
    const both: Bounds = { lower: low, upper: upper ? variable(upper) : low, granularity, bits };
    sites.bounds.set(site, both);
  }
  for (const [key, { codes: bytes, shape, storageBits }] of codes) {
    const own = sites.bounds.get(`${key}.w`)!;
    sites.frozen.set(key, new Codes(bytes as unknown as U8, shape, own, storageBits));
  }
  for (const [key, turned] of rotations) sites.rotations.set(key, variable(turned));
  return { sites, quantised: sites };
}
