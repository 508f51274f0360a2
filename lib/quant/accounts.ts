/**
 * What a model costs on paper: size, multiply-accumulates (MACs) and bits by kind of site, by the
 * rules that reproduce Table 4 of SPR2Q: 4 bytes a float parameter and n/8 a quantised one (bounds
 * not counted), MACs on the padded input, LayerNorm 5 an element, scan 9 N D L + N D, an n-bit MAC
 * as n/32 of a float one. Nothing here is measured.
 */
import type { Architecture, MacItem, NetworkConfig, Operands } from "../models/architecture.ts";
import { layerPrefixes } from "../models/network.ts";
import { codedTensors } from "./layout.ts";
import { inScope, type Policy } from "./policy.ts";

/** Bits of everything that stays in float. */
const FLOAT_BITS = 32;
/** HR size whose LR input the published counts use. */
const COUNTED_OUTPUT = { width: 1280, height: 720 } as const;

/** What is counted: a {@link Network} is one, and so is a network that nobody has made. */
export interface Design {
  readonly architecture: Architecture;
  readonly config: NetworkConfig;
}

/** Sizes of one network, in parameters and bytes. */
export interface SizeAccount {
  readonly parameters: number;
  readonly quantisedParameters: number;
  /** 4 bytes a float parameter + n/8 a quantised one: the paper's "MB" is this in MiB. */
  readonly bytes: number;
  readonly mebibytes: number;
  /** Size of the same network in float over this size. */
  readonly ratio: number;
  /** 2DQuant's way: relative position tables left out, MB = 10^6 bytes. */
  readonly withoutTables: { readonly megabytes: number; readonly ratio: number };
}

/**
 * Counts the parameters of a network. Which ones are quantised comes from the names of the file's
 * tensors where `stored` is given, else from `policy`; null counts everything in float.
 */
export function sizeAccount(
  { architecture, config }: Design,
  policy: Policy | null,
  stored?: ReadonlyMap<string, unknown>,
): SizeAccount {
  const planned = policy ? codedTensors(architecture, config, policy) : new Set<string>();
  const coded = (name: string): boolean => {
    if (!policy || !stored) return planned.has(name);
    const key = name.replace(/\.weight$/, "");
    return stored.has(`${key}.codes`) || stored.has(`${key}.q.codes`);
  };
  const bits = policy?.bits ?? FLOAT_BITS;
  const counts = { parameters: 0, quantised: 0, tables: 0 };
  for (const { name, shape } of architecture.parameterSpecs(config)) {
    const size = shape.reduce((product, side) => product * side, 1);
    counts.parameters += size;
    if (coded(name)) counts.quantised += size;
    else if (name.endsWith("relative_position_bias_table")) counts.tables += size;
  }
  const { parameters, quantised, tables } = counts;
  const bytes = 4 * (parameters - quantised) + (quantised * bits) / 8;
  return {
    parameters,
    quantisedParameters: quantised,
    bytes,
    mebibytes: bytes / 2 ** 20,
    ratio: (4 * parameters) / bytes,
    withoutTables: {
      megabytes: (bytes - 4 * tables) / 1e6,
      ratio: (4 * (parameters - tables)) / (bytes - 4 * tables),
    },
  };
}

/** MACs of one kind of operation, all its instances together. */
export interface MacRow {
  readonly name: string;
  readonly instances: number;
  readonly macs: number;
  /** Bits of the two operands; 32 is float. */
  readonly bits: readonly [number, number];
}

/** What {@link macRows} counts: LR pixels, and whether they are padded to whole windows. */
export interface CountedInput {
  readonly width: number;
  readonly height: number;
  readonly padded: boolean;
}

/** The LR input of a 1280x720 result at `scale`, padded as the network pads it. */
export function countedInput(scale: number): CountedInput {
  const { width, height } = COUNTED_OUTPUT;
  return { width: Math.floor(width / scale), height: Math.floor(height / scale), padded: true };
}

/** Pixels that the network works on for an input. */
export function tokensOf(config: NetworkConfig, input: CountedInput): number {
  const side = (length: number): number =>
    input.padded ? Math.ceil(length / config.window) * config.window : length;
  return side(input.width) * side(input.height);
}

/** Bits of the two operands of a product under `policy`. */
function operandBits(operands: Operands, policy: Policy | null): [number, number] {
  const n = policy?.bits ?? FLOAT_BITS;
  switch (operands) {
    case "float":
      return [FLOAT_BITS, FLOAT_BITS];
    case "codes":
      return [n, n];
    case "released-codes":
      return policy && inScope(policy, { releasedOnly: true }) ? [n, n] : [FLOAT_BITS, FLOAT_BITS];
    case "probabilities":
      // The square of a half-exponent code is the operand: 2n bits (spr2q leads 2).
      return [policy?.leads.halfExponent ? 2 * n : n, n];
  }
}

/** MACs of a whole pass by operation, with the widths of the operands under `policy`. */
export function macRows(
  { architecture, config }: Design,
  policy: Policy | null,
  input: CountedInput = countedInput(config.scale),
): MacRow[] {
  const tokens = tokensOf(config, input);
  const items = [...architecture.macs(config), ...rotationItems({ architecture, config }, policy)];
  return items.map(({ name, instances, macs, once, operands }) => ({
    name,
    instances,
    macs: instances * macs * (once ? 1 : tokens),
    bits: operandBits(operands, policy),
  }));
}

/** Begins the names of rows of {@link macRows} that are online rotations. */
export const ROTATION = "rotation before ";

/** The online rotations of a method: a float product of (in, in) for every token. */
function rotationItems({ architecture, config }: Design, policy: Policy | null): MacItem[] {
  const layers = layerPrefixes(architecture, config);
  const shapes = new Map(architecture.parameterSpecs(config).map((one) => [one.name, one.shape]));
  return Object.keys(policy?.rotations ?? {}).map((name) => {
    const [, inputs] = shapes.get(`${layers[0]}${name}.weight`)!;
    const instances = layers.length;
    const title = `${ROTATION}${name}`;
    return { name: title, instances, macs: inputs ** 2, once: false, operands: "float" };
  });
}

/** MACs of one pass, in units (not G). */
export interface MacAccount {
  readonly input: CountedInput;
  readonly tokens: number;
  /** Every MAC as one, whatever its bits. */
  readonly macs: number;
  /** Each MAC as (bits of its wider operand)/32: PV with half-exponent codes as 2n/32. */
  readonly priced: number;
  /** Table 4's convention: every quantised product as n/32, PV too. */
  readonly pricedUniform: number;
  /** macs / priced: a price, not a measured speed-up. */
  readonly ratio: number;
  /** Sum of MACs times the bits of both operands (BOPs). */
  readonly bitOperations: number;
}

/** Sums of {@link macRows}. */
export function macAccount(
  design: Design,
  policy: Policy | null,
  input: CountedInput = countedInput(design.config.scale),
): MacAccount {
  let [macs, priced, pricedUniform, bitOperations] = [0, 0, 0, 0];
  for (const { macs: count, bits } of macRows(design, policy, input)) {
    macs += count;
    priced += (count * Math.max(...bits)) / FLOAT_BITS;
    pricedUniform += (count * Math.min(...bits)) / FLOAT_BITS;
    bitOperations += count * bits[0] * bits[1];
  }
  const tokens = tokensOf(design.config, input);
  return { input, tokens, macs, priced, pricedUniform, ratio: macs / priced, bitOperations };
}

/** Bits of each kind of site; 32 is float. */
export interface SiteBits {
  readonly weights: number;
  readonly activations: number;
  readonly attention: number;
  readonly probabilities: number;
  /** Bits of the operand that enters the product with v: the code, or its square. */
  readonly probabilityOperand: number;
  /** MambaIRv2's positional convolution and scan operands; null where a network has none. */
  readonly positionalConvolution: number | null;
  readonly scanOperands: number | null;
}

/** Bits by kind of site under `policy`; null is the float network. */
export function siteBits(architecture: Architecture, policy: Policy | null): SiteBits {
  const n = policy?.bits ?? FLOAT_BITS;
  const released = operandBits("released-codes", policy)[0];
  return {
    weights: n,
    activations: n,
    attention: n,
    probabilities: n,
    probabilityOperand: operandBits("probabilities", policy)[0],
    positionalConvolution: architecture.modules.some((one) => one.releasedOnly) ? released : null,
    scanOperands: architecture.extraSites.some(({ when }) => when === "released") ? released : null,
  };
}
