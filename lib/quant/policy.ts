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
import type { CodedModule } from "../models/network.ts";

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
}

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

/** True where the input of `module`, a matrix product's, carries channel offsets. */
export function offsetsAllowed(policy: Policy, module: CodedModule): boolean {
  return policy.leads.channelOffsets && module.offsets;
}
