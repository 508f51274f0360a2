/**
 * The quantised model file: one safetensors file with packed codes, bounds and the remaining float
 * tensors, and __metadata__ that says how it was made.
 *
 *   NAME             float tensors, half precision, under their checkpoint names
 *   KEY.codes        packed codes of KEY.weight, rows starting on a byte, little-endian in the byte
 *   KEY.rotation     transposed rotation of KEY's input, half precision, where one is stored
 *   LAYER.bounds     every bound of one layer, float32, in the order of siteOrder()
 */
import { Var } from "../autograd.ts";
import type { U8 } from "../binding.ts";
import { native } from "../binding.ts";
import { readable } from "../device.ts";
import { expected, Spr2qError } from "../errors.ts";
import { type HostTensor, type TensorMap, toFloat16, toFloat32 } from "../io/host_tensor.ts";
import { writeSafetensors } from "../io/safetensors.ts";
import { Graph } from "../autograd.ts";
import type { Architecture, NetworkConfig } from "../models/architecture.ts";
import { Network } from "../models/network.ts";
import { ARCHITECTURES, architectureNamed, configProblem } from "../models/registry.ts";
import { floatsFrom, Memory } from "../tensor.ts";
import { packCodes, unpackCodes } from "./bitpack.ts";
import { Codes, jointBounds, quantize } from "./codes.ts";
import { inputsOf } from "./folding.ts";
import { rotationVar } from "./rotation.ts";
import { mergedWeight } from "./coded_weights.ts";
import { codedModules, codedTensors, rowsOf, siteOrder } from "./layout.ts";
import { type Policy, policyFor, type Scope } from "./policy.ts";
import { QuantisedSites } from "./sites.ts";
import type { Student } from "./student.ts";

/** Version of the file layout; readers refuse others. */
export const FORMAT_VERSION = "1";

/** What a file says about its making; all strings, as safetensors wants. */
export type PackMetadata = Readonly<Record<string, string>>;

/** Bytes of the quantised model file of a student whose tensors lie in `memory`. */
export function packStudent(
  { net, sites }: Student,
  metadata: PackMetadata,
  memory: Memory = new Memory(),
): Uint8Array {
  const { policy } = sites;
  const { architecture, config } = net;
  const tensors = new Map<string, HostTensor>();
  const coded = codedTensors(architecture, config, policy);
  for (const { name, shape } of architecture.parameterSpecs(config)) {
    if (coded.has(name)) continue;
    tensors.set(name, {
      shape,
      dtype: "f16",
      data: toFloat16(readable(net.weights.get(name)!.data)),
    });
  }
  const graph = new Graph("running", memory);
  for (const prefix of net.layerPrefixes) {
    for (const { name, tensor } of codedModules(architecture, policy)) {
      const key = prefix + name;
      const weight = mergedWeight(graph, sites, key, net.get(prefix + tensor));
      const bounds = sites.bounds.get(`${key}.w`)!;
      const rows = rowsOf(weight.shape);
      const flat = new Var(weight.data, [rows, weight.size / rows]);
      const codes = readable(quantize(graph, flat, bounds).codes);
      const packed = packCodes(codes, rows, weight.size / rows, policy.bits);
      tensors.set(`${key}.codes`, {
        shape: [rows, packed.length / rows],
        dtype: "u8",
        data: packed,
      });
    }
    for (const [name, source] of Object.entries(policy.rotations ?? {})) {
      if (source !== "stored") continue;
      const { shape, data } = sites.rotations.get(prefix + name)!;
      tensors.set(`${prefix + name}.rotation`, { shape, dtype: "f16", data: toFloat16(data) });
    }
    const values: number[] = [];
    for (const { site, joint } of siteOrder(net, sites, prefix)) {
      const bounds = sites.bounds.get(site)!;
      if (!joint) values.push(...readable(bounds.lower.data));
      values.push(...readable(bounds.upper.data));
    }
    const data = Float32Array.from(values);
    tensors.set(`${prefix}bounds`, { shape: [data.length], dtype: "f32", data });
  }
  graph.dispose();
  return writeSafetensors(tensors, {
    format: "spr2q",
    format_version: FORMAT_VERSION,
    architecture: architecture.name,
    config: JSON.stringify(config),
    scale: `${config.scale}`,
    bits: `${policy.bits}`,
    scope: policy.scope,
    leads: JSON.stringify(policy.leads),
    ...(policy.granularity ? { granularity: JSON.stringify(policy.granularity) } : {}),
    ...(policy.activation ? { activation: policy.activation } : {}),
    ...(policy.rotations ? { rotations: JSON.stringify(policy.rotations) } : {}),
    ...(policy.tokenRanges ? { token_ranges: JSON.stringify(policy.tokenRanges) } : {}),
    ...metadata,
  });
}

/** True for files that packStudent wrote. */
export function isPacked(metadata: PackMetadata): boolean {
  return metadata.format === "spr2q";
}

/** The frozen network of a quantised model file; ERR_CHECKPOINT names what does not fit. */
export function unpackModel(tensors: TensorMap, metadata: PackMetadata, name: string): Student {
  if (metadata.format_version !== FORMAT_VERSION) {
    throw expected(
      "ERR_CHECKPOINT",
      `${name}: format version`,
      FORMAT_VERSION,
      `${metadata.format_version}`,
      "Quantise again with this version of spr2q.",
    );
  }
  const { architecture, config, policy } = readHeader(metadata, name);
  const coded = codedTensors(architecture, config, policy);
  const sites = new QuantisedSites(policy, architecture);
  const restore = (tensor: string): void => restoreFloats(net, sites, tensor);
  const net: Network = Network.empty(architecture, config, (name) => coded.has(name), restore);
  const used = new Set<string>();
  const take = (key: string, length: number): HostTensor => {
    const found = tensors.get(key);
    if (found?.data.length !== length) {
      throw expected(
        "ERR_CHECKPOINT",
        `${name}: "${key}"`,
        `${length} elements`,
        found ? `${found.data.length}` : "no such tensor",
      );
    }
    used.add(key);
    return found;
  };
  for (const spec of architecture.parameterSpecs(config)) {
    if (coded.has(spec.name)) continue;
    const weight = net.weights.get(spec.name)!;
    weight.data.set(toFloat32(take(spec.name, weight.size)));
  }
  for (const prefix of net.layerPrefixes) readLayer(net, sites, prefix, take);
  for (const key of tensors.keys()) {
    if (!used.has(key))
      throw new Spr2qError("ERR_CHECKPOINT", `${name}: unexpected tensor "${key}".`);
  }
  return { net, sites };
}

interface Header {
  readonly architecture: Architecture;
  readonly config: NetworkConfig;
  readonly policy: Policy;
}

function readHeader(metadata: PackMetadata, name: string): Header {
  const architecture = architectureNamed(metadata.architecture);
  if (!architecture) {
    const known = ARCHITECTURES.map((one) => one.name).join(" or ");
    throw expected("ERR_ARCHITECTURE", `${name}: architecture`, known, metadata.architecture);
  }
  try {
    const config = JSON.parse(metadata.config) as NetworkConfig;
    const leads = JSON.parse(metadata.leads) as Policy["leads"];
    const policy: Policy = {
      ...policyFor(metadata.scope as Scope, Number(metadata.bits), leads),
      ...(metadata.granularity ? { granularity: JSON.parse(metadata.granularity) } : {}),
      ...(metadata.activation === "relu" ? { activation: "relu" as const } : {}),
      ...(metadata.rotations ? { rotations: JSON.parse(metadata.rotations) } : {}),
      ...(metadata.token_ranges ? { tokenRanges: JSON.parse(metadata.token_ranges) } : {}),
    };
    const problem = configProblem(architecture, config);
    if (problem) throw new Error(`expected ${problem}`);
    if (![1, 2, 4, 8].includes(policy.bits)) throw new Error("expected 8, 4, 2 or 1 bit");
    return { architecture, config, policy };
  } catch (cause) {
    throw new Spr2qError(
      "ERR_CHECKPOINT",
      `${name}: its metadata does not describe a quantised model ` +
        `(${(cause as Error).message}).`,
      { cause },
    );
  }
}

function readLayer(
  net: Network,
  sites: QuantisedSites,
  prefix: string,
  take: (key: string, length: number) => HostTensor,
): void {
  const { bits, rotations = {} } = sites.policy;
  for (const [name, source] of Object.entries(rotations)) {
    const key = prefix + name;
    const side = inputsOf(net, key);
    const stored = source === "stored" ? toFloat32(take(`${key}.rotation`, side * side)) : null;
    sites.rotations.set(key, rotationVar(side, stored));
  }
  const order = siteOrder(net, sites, prefix);
  const total = order.reduce((sum, { lower, upper }) => sum + lower + upper, 0);
  const values = toFloat32(take(`${prefix}bounds`, total));
  let at = 0;
  for (const { site, granularity, joint, lower, upper } of order) {
    const low = values.subarray(at, at + lower);
    const high = values.subarray(at + lower, at + lower + upper);
    at += lower + upper;
    sites.bounds.set(
      site,
      joint
        ? jointBounds(low[0], high[0], bits)
        : {
            lower: new Var(floatsFrom(low), [lower]),
            upper: new Var(floatsFrom(high), [upper]),
            granularity,
            bits,
          },
    );
  }
  for (const { name, tensor, kind } of codedModules(net.architecture, sites.policy)) {
    const key = prefix + name;
    const weight = net.get(prefix + tensor);
    const rows = rowsOf(weight.shape);
    const columns = weight.size / rows;
    const packed = take(`${key}.codes`, rows * Math.ceil((columns * bits) / 8)).data as U8;
    const bounds = sites.bounds.get(`${key}.w`)!;
    const shape = kind === "depthwise" ? weight.shape : [rows, columns];
    const narrow = kind === "values" || sites.policy.tokenRanges?.[name] !== undefined;
    const codes = narrow ? unpackCodes(packed, rows, columns, bits) : Uint8Array.from(packed);
    sites.frozen.set(key, new Codes(codes, shape, bounds, narrow ? 8 : bits));
  }
}

/**
 * Fills a float tensor (its q, k and v parts, where it has them) with the values of its codes, when
 * inspection or the tape asks for it: a plan never does.
 */
function restoreFloats(net: Network, sites: QuantisedSites, whole: string): void {
  for (const prefix of net.layerPrefixes.filter((one) => whole.startsWith(one))) {
    for (const { name, tensor } of codedModules(net.architecture, sites.policy)) {
      if (Network.wholeName(prefix + tensor) !== whole) continue;
      const weight = net.get(prefix + tensor);
      const rows = rowsOf(weight.shape);
      const columns = weight.size / rows;
      const { codes, bounds, storageBits } = sites.frozen.get(prefix + name)!;
      native().dequantize(
        unpackCodes(codes, rows, columns, storageBits),
        bounds.lower.data,
        bounds.upper.data,
        weight.data,
        rows,
        columns,
        bounds.granularity === "row" ? 1 : 0,
        bounds.bits,
      );
    }
  }
}
