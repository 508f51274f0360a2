/**
 * Which sites of a network are quantised, and how. A scope says where (and at how many bits), the
 * leads say with which kind of quantiser; the architecture lists what there is (models/network.ts).
 *
 * released  all sites of the authors' code: 48 a layer of MambaIRv2, 16 a layer of SwinIR;
 * table4    what the paper's Table 4 prices at n bits: MambaIRv2 without CPE, scan operands in float
 *           (the inputs of x_proj and dt_proj stay at n bits, since their products are priced so);
 *           SwinIR as released;
 * best      table4 with the leads on.
 */
import type { CodedModule } from "../models/architecture.ts";

/** Which sites are quantised; see the head of this file. */
export type Scope = "released" | "table4" | "best";

/** The three measured improvements, each without cost at inference. */
export interface Leads {
  /** Softmax probabilities as half-exponent codes instead of Eq. 1. */
  readonly halfExponent: boolean;
  /** An offset per channel for inputs of linear layers and of MambaIRv2's 5x5 convolution. */
  readonly channelOffsets: boolean;
  /** Weight bounds per output channel. */
  readonly rowBounds: boolean;
}

/** What a whole run quantises. */
export interface Policy {
  readonly bits: number;
  readonly scope: Scope;
  readonly leads: Leads;
  /** Kinds of bounds that single modules have instead of what the leads say, by module name. */
  readonly granularity?: GranularityByModule;
  /** Modules whose inputs are turned by an orthonormal matrix before their quantiser, online. */
  readonly rotations?: RotationByModule;
  /** "relu": stands in place of the GELU of SwinIR's MLPs; the quantiser behind it clips at 0. */
  readonly activation?: "relu";
  /** Modules whose inputs have a range for each place of a token instead of one, by module name. */
  readonly tokenRanges?: TokenRangesByModule;
}

/**
 * Module names to what tells tokens apart: their place in a window (window^2 ranges), or their rank
 * in the sequence of the scan in RANK_BINS equal parts.
 */
export type TokenRangesByModule = Readonly<Record<string, "window" | "rank">>;

/** Parts of the scan's sequence that have ranges of their own. */
export const RANK_BINS = 64;

/** True where some products are taken of values instead of codes: those of ranges by token. */
export function hasTokenRanges(policy: Policy): boolean {
  return Object.keys(policy.tokenRanges ?? {}).length > 0;
}

/** Module names to where the matrix comes from: by its order alone, or from the model file. */
export type RotationByModule = Readonly<Record<string, "hadamard" | "stored">>;

/** Module names (models/network.ts) to the kinds of bounds of their inputs and weights. */
export type GranularityByModule = Readonly<
  Record<string, { readonly input?: "tensor" | "column"; readonly weight?: "tensor" | "row" }>
>;

/** The policy of a scope, with leads by default on in `best` and off elsewhere. */
export function policyFor(scope: Scope, bits: number, leads?: Partial<Leads>): Policy {
  const on = scope === "best";
  const all = {
    halfExponent: leads?.halfExponent ?? on,
    channelOffsets: leads?.channelOffsets ?? on,
    rowBounds: leads?.rowBounds ?? on,
  };
  return { bits, scope, leads: all };
}

/** True where CPE and the operands of the scan (u, delta, bias, A, B, C, h) are quantised. */
export function quantisesScan(policy: Policy): boolean {
  return policy.scope === "released";
}

/** Whether the policy's scope has a module or site that exists at `released` only, or not only. */
export function inScope(policy: Policy, { releasedOnly }: { releasedOnly: boolean }): boolean {
  return !releasedOnly || policy.scope === "released";
}

/** Bounds of a module's input: one range, one by token, or an offset per channel and one range. */
export function inputGranularity(
  policy: Policy,
  module: CodedModule,
): "tensor" | "column" | "token" {
  if (policy.tokenRanges?.[module.name]) return "token";
  const own = policy.granularity?.[module.name]?.input;
  return own ?? (policy.leads.channelOffsets && module.offsets ? "column" : "tensor");
}

/** Bounds of a module's weight: one range, or one per output channel. */
export function weightGranularity(policy: Policy, module: CodedModule): "tensor" | "row" {
  return policy.granularity?.[module.name]?.weight ?? (policy.leads.rowBounds ? "row" : "tensor");
}
