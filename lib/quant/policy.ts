/**
 * Which sites of MambaIRv2-light are quantised, and how. A scope says where (and at how many bits),
 * the leads say with which kind of quantiser.
 *
 * released  the 48 sites a layer of the authors' code;
 * table4    what the paper's Table 4 prices at n bits: without CPE, scan operands in float (the
 *           inputs of x_proj and dt_proj stay at n bits, since their products are priced so);
 * best      table4 with the leads on.
 */
export type Scope = "released" | "table4" | "best";

/** The three measured improvements, each without cost at inference. */
export interface Leads {
  /** Softmax probabilities as half-exponent codes instead of Eq. 1. */
  readonly halfExponent: boolean;
  /** An offset per channel for inputs of linear layers and of the 5x5 depth-wise convolution. */
  readonly channelOffsets: boolean;
  /** Weight bounds per output channel. */
  readonly rowBounds: boolean;
}

/** What a whole run quantises. */
export interface Policy {
  readonly bits: number;
  readonly scope: Scope;
  readonly leads: Leads;
  /** Offsets also for the inputs of x_proj (the sorted, gated tokens) and dt_proj. */
  readonly scanOffsets: boolean;
}

/** The policy of a scope, with leads by default on in `best` and off elsewhere. */
export function policyFor(scope: Scope, bits: number, leads?: Partial<Leads>): Policy {
  const on = scope === "best";
  const all = {
    halfExponent: leads?.halfExponent ?? on,
    channelOffsets: leads?.channelOffsets ?? on,
    rowBounds: leads?.rowBounds ?? on,
  };
  return { bits, scope, leads: all, scanOffsets: all.channelOffsets };
}

/** True where CPE and the operands of the scan (u, delta, bias, A, B, C, h) are quantised. */
export function quantisesScan(policy: Policy): boolean {
  return policy.scope === "released";
}

/** Modules (below a layer) whose input is a matrix product's: they may carry channel offsets. */
export function offsetsAllowed(policy: Policy, module: string): boolean {
  if (!policy.leads.channelOffsets || module === "assm.CPE.0") return false;
  return policy.scanOffsets || !/x_proj|dt_projs/.test(module);
}

/** Linear modules of a layer that carry rectifiers (11 in the paper's code). */
export const RECTIFIED: readonly string[] = [
  "wqkv.q",
  "wqkv.k",
  "wqkv.v",
  "win_mhsa.proj",
  "convffn1.fc1",
  "convffn1.fc2",
  "assm.route.0",
  "assm.route.2",
  "assm.out_proj",
  "convffn2.fc1",
  "convffn2.fc2",
];
