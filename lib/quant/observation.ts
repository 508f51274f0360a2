/** What is told about a site to those who watch it: calibration and tests. */
import type { Var } from "../autograd.ts";
import type { I32 } from "../binding.ts";
import type { Bounds, Codes } from "./codes.ts";

/** Receives what flows through a site while the network runs in float; returns nothing. */
export type Observer = (site: string, x: Var, wanted: SiteKind) => void;

/** What kind of quantiser a site gets. */
export interface SiteKind {
  readonly granularity: Bounds["granularity"];
  readonly role: "activation" | "weight" | "probability" | "state";
  /** For "token": the place of every row. */
  readonly places?: I32;
}

/** Called with every site's codes: tests compare training graph and packed plan with it. */
export type Tap = (site: string, codes: Codes) => void;
