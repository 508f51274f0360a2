/**
 * What a model costs on paper: size, multiply-accumulates (MACs) and bits by kind of site, by the
 * rules that reproduce Table 4 of SPR2Q: 4 bytes a float parameter and n/8 a quantised one (bounds
 * not counted), MACs on the padded input, LayerNorm 5 an element, scan 9 N D L + N D, an n-bit MAC
 * as n/32 of a float one. Nothing here is measured.
 */
import { type MambaConfig, parameterSpecs } from "../models/parameters.ts";
import { type Policy, quantisesScan } from "./policy.ts";
import { codedTensor } from "./student.ts";

/** Bits of everything that stays in float. */
const FLOAT_BITS = 32;
/** HR size whose LR input the published counts use. */
const COUNTED_OUTPUT = { width: 1280, height: 720 } as const;

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
 * Counts the parameters of `config`. Which ones are quantised comes from the names of the file's
 * tensors where `stored` is given, else from `policy`; null counts everything in float.
 */
export function sizeAccount(
  config: MambaConfig,
  policy: Policy | null,
  stored?: ReadonlyMap<string, unknown>,
): SizeAccount {
  const coded = (name: string): boolean => {
    if (!policy) return false;
    if (!stored) return codedTensor(name, quantisesScan(policy));
    const key = name.replace(/\.weight$/, "");
    return stored.has(`${key}.codes`) || stored.has(`${key}.q.codes`);
  };
  const bits = policy?.bits ?? FLOAT_BITS;
  const counts = { parameters: 0, quantised: 0, tables: 0 };
  for (const { name, shape } of parameterSpecs(config)) {
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
export function tokensOf(config: MambaConfig, input: CountedInput): number {
  const side = (length: number): number =>
    input.padded ? Math.ceil(length / config.window) * config.window : length;
  return side(input.width) * side(input.height);
}

/** MACs of a whole pass by operation, with the widths of the operands under `policy`. */
export function macRows(
  config: MambaConfig,
  policy: Policy | null,
  input: CountedInput = countedInput(config.scale),
): MacRow[] {
  const { channels: C, hidden: E, states: S, deltaRank, classes, routerHidden: R } = config;
  const layers = config.depths.reduce((a, b) => a + b, 0);
  const tokens = tokensOf(config, input);
  const n = policy?.bits ?? FLOAT_BITS;
  const cpe = policy && quantisesScan(policy) ? n : FLOAT_BITS;
  // The square of a half-exponent code is the operand: 2n bits (spr2q leads 2).
  const probability = policy?.leads.halfExponent ? 2 * n : n;
  const rows: MacRow[] = [];
  const add = (name: string, instances: number, perToken: number, a: number, b = a): void => {
    rows.push({ name, instances, macs: instances * perToken * tokens, bits: [a, b] });
  };
  add("conv_first", 1, 27 * C, FLOAT_BITS);
  add("wqkv", layers, 3 * C * C, n);
  add("q k^T", layers, config.window ** 2 * C, n);
  add("probabilities v", layers, config.window ** 2 * C, probability, n);
  add("win_mhsa.proj", layers, C * C, n);
  add("convffn.fc1", 2 * layers, C * E, n);
  add("convffn depth-wise 5x5", 2 * layers, 25 * (E / 2), n);
  add("convffn.fc2", 2 * layers, (E / 2) * C, n);
  add("router", layers, C * R + R * classes, n);
  rows.push({
    name: "prompt pool", // once a layer, however many tokens
    instances: layers,
    macs: layers * classes * config.promptRank * S,
    bits: [n, n],
  });
  add("prompt choice", layers, classes * S, n);
  add("in_proj", layers, C * E, n);
  add("CPE depth-wise 3x3", layers, 9 * E, cpe);
  add("x_proj", layers, E * (deltaRank + 2 * S), n);
  add("dt_proj", layers, deltaRank * E, n);
  // Table 4 counts the scan as float wherever its operands are quantised: the recurrence is float.
  add("scan", layers, 9 * E * S + E, FLOAT_BITS);
  add("out_proj", layers, E * C, n);
  add("group convolutions", config.depths.length, 9 * C * C, FLOAT_BITS);
  add("conv_after_body", 1, 9 * C * C, FLOAT_BITS);
  add("upsample", 1, 9 * C * 3 * config.scale ** 2, FLOAT_BITS);
  add("LayerNorm in layers", layers, 5 * (4 * C + 2 * E), FLOAT_BITS);
  add("LayerNorm outside", 2, 5 * C, FLOAT_BITS);
  return rows;
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
  config: MambaConfig,
  policy: Policy | null,
  input: CountedInput = countedInput(config.scale),
): MacAccount {
  let [macs, priced, pricedUniform, bitOperations] = [0, 0, 0, 0];
  for (const { macs: count, bits } of macRows(config, policy, input)) {
    macs += count;
    priced += (count * Math.max(...bits)) / FLOAT_BITS;
    pricedUniform += (count * Math.min(...bits)) / FLOAT_BITS;
    bitOperations += count * bits[0] * bits[1];
  }
  const tokens = tokensOf(config, input);
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
  readonly positionalConvolution: number;
  readonly scanOperands: number;
}

/** Bits by kind of site under `policy`; null is the float network. */
export function siteBits(policy: Policy | null): SiteBits {
  const n = policy?.bits ?? FLOAT_BITS;
  const scan = policy && quantisesScan(policy) ? n : FLOAT_BITS;
  return {
    weights: n,
    activations: n,
    attention: n,
    probabilities: n,
    probabilityOperand: policy?.leads.halfExponent ? 2 * n : n,
    positionalConvolution: scan,
    scanOperands: scan,
  };
}
