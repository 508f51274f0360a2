/**
 * Budgets: how much training a cell gets. One budget for every row makes rows comparable; the
 * paper's own is there to be asked for where there is the hardware.
 */
import { expected } from "../errors.ts";
import type { Effort, NetworkName } from "./cell.ts";

/** A budget as given: fixed steps, or minutes of training from which the steps follow. */
export type Budget =
  | { readonly kind: "steps"; readonly text: string; effort(network: NetworkName): Effort }
  | {
      readonly kind: "minutes";
      readonly text: string;
      readonly minutes: number;
      readonly batch: number;
      readonly patch: number;
    };

/**
 * The paper spends 500 steps of OSRC on 12,000 of RGT; other budgets keep that proportion, and at
 * least the ten steps below which the gates have not moved by a thousandth.
 */
export function osrcSteps(iterations: number): number {
  return iterations === 0 ? 0 : Math.max(10, Math.round(iterations / 24));
}

/** At most three minutes a cell on two cores, evaluation included (bench/RESULTS.md). */
const COMMON: Effort = { iterations: 100, osrc: osrcSteps(100), batch: 4, patch: 32 };

/** What the papers state: MambaIRv2-light 12,000 + 500 steps of 8, SwinIR-light 4,000 of 16. */
const PUBLISHED: Readonly<Record<NetworkName, Effort>> = {
  "MambaIRv2-light": { iterations: 12_000, osrc: 500, batch: 8, patch: 64 },
  "SwinIR-light": { iterations: 4000, osrc: 500, batch: 16, patch: 64 },
};

/**
 * Reads "common", "full" (the paper's), "ITERATIONSxBATCHxPATCH" or "MINUTESmin".
 * @throws ERR_USAGE
 */
export function parseBudget(text: string): Budget {
  if (text === "common") return { kind: "steps", text, effort: () => COMMON };
  if (text === "full") return { kind: "steps", text, effort: (network) => PUBLISHED[network] };
  const steps = /^(\d+)x(\d+)x(\d+)$/.exec(text);
  if (steps) {
    const [iterations, batch, patch] = steps.slice(1).map(Number);
    if (batch >= 1 && batch <= 256 && patch >= 16 && patch <= 512) {
      const effort = { iterations, osrc: osrcSteps(iterations), batch, patch };
      return { kind: "steps", text, effort: () => effort };
    }
  }
  const minutes = /^(\d+(?:\.\d+)?)min$/.exec(text);
  if (minutes && Number(minutes[1]) > 0) {
    const { batch, patch } = COMMON;
    return { kind: "minutes", text, minutes: Number(minutes[1]), batch, patch };
  }
  throw expected(
    "ERR_USAGE",
    "--budget",
    "common, full, ITERATIONSxBATCHxPATCH (patch 16 to 512) or MINUTESmin",
    `"${text}"`,
  );
}

/** The effort that fills `minutes` at `secondsPerStep`, OSRC included. */
export function effortOfMinutes(
  budget: Extract<Budget, { kind: "minutes" }>,
  secondsPerStep: number,
): Effort {
  const { minutes, batch, patch } = budget;
  const steps = Math.max(11, Math.floor((minutes * 60) / secondsPerStep));
  const iterations = Math.max(1, Math.min(steps - 10, Math.floor((steps * 24) / 25)));
  return { iterations, osrc: steps - iterations, batch, patch };
}
