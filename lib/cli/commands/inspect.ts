/**
 * `spr2q inspect`: what a model file holds, without running it: architecture, parameters, bits by
 * kind of site, sizes and MACs by the conventions of lib/quant/accounts.ts, bounds, routing table.
 */
import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Model, openModel } from "../../infer/model.ts";
import type { NetworkConfig } from "../../models/architecture.ts";
import {
  countedInput,
  type MacAccount,
  macAccount,
  macRows,
  ROTATION,
  type SiteBits,
  type SizeAccount,
  siteBits,
  sizeAccount,
} from "../../quant/accounts.ts";
import { METHODS } from "../../methods/registry.ts";
import { type Leads, type Policy, policyFor } from "../../quant/policy.ts";
import { type RangeSummary, summariseBounds } from "../../quant/site_kinds.ts";
import { defineCommand } from "../args.ts";
import { describeInspection } from "./inspect_text.ts";

/** Gates of every rectified module, as quantize writes them beside the model. */
export interface RoutingGates {
  readonly file: string;
  readonly layers: Readonly<Record<string, readonly number[]>>;
  readonly lossBefore: number | null;
  readonly lossAfter: number | null;
}

/** What the method of a quantised file is, and what it costs at inference. */
export interface MethodAccount {
  readonly name: string;
  /** In a sentence; null for a method that this version does not know. */
  readonly title: string | null;
  /** Modules whose inputs have ranges by token: float products of coded operands, op by op. */
  readonly tokenRanges: readonly string[];
  /** Modules whose inputs are turned online, and the float MACs of that (part of `macs`). */
  readonly rotations: readonly string[];
  readonly rotationMacs: number;
}

/** Everything that `inspect --json` prints. */
export interface Inspection {
  readonly model: string;
  readonly architecture: string;
  readonly scale: number;
  readonly config: NetworkConfig;
  /** Sizes that only this architecture has, in words. */
  readonly sizes: string;
  readonly sha256: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly diskBytes: number;
  /** Null for a full-precision file, as are `scope`, `leads` and `releasedScope`. */
  readonly method: MethodAccount | null;
  readonly scope: string | null;
  readonly leads: Leads | null;
  readonly bits: SiteBits;
  readonly size: SizeAccount;
  /** Bytes of the stored bounds, which the counted size leaves out by convention. */
  readonly boundBytes: number;
  readonly macs: MacAccount;
  /** MACs on the bare input, without the padding to whole windows. */
  readonly unpaddedMacs: MacAccount;
  /** The same bits and leads at the sites of the authors' code, CPE among them. */
  readonly releasedScope: { readonly size: SizeAccount; readonly macs: MacAccount } | null;
  readonly bounds: readonly RangeSummary[];
  readonly routingTable: RoutingGates | null;
  /** Why a table.json beside the file is not shown, or null. */
  readonly routingProblem: string | null;
}

/** The routing table of a text of JSON; a string says what is wrong with it. */
export function parseRoutingTable(text: string, file: string): RoutingGates | string {
  let table: Partial<RoutingGates> | null;
  try {
    table = JSON.parse(text);
  } catch (cause) {
    return `${file} is no JSON: ${(cause as Error).message}`;
  }
  const layers = table?.layers;
  if (typeof layers !== "object" || layers === null) return `${file} has no "layers"`;
  for (const [key, gates] of Object.entries(layers)) {
    const sound =
      Array.isArray(gates) && gates.every((g) => typeof g === "number" && g >= 0 && g <= 1);
    if (!sound) return `${file}: gates of "${key}" are not numbers from 0 to 1`;
  }
  const loss = (value: unknown): number | null => (typeof value === "number" ? value : null);
  return { file, layers, lossBefore: loss(table?.lossBefore), lossAfter: loss(table?.lossAfter) };
}

async function readRoutingTable(modelPath: string): Promise<RoutingGates | string | null> {
  const file = join(dirname(modelPath), "table.json");
  try {
    return parseRoutingTable(await readFile(file, "utf8"), file);
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    return missing ? null : `${file} cannot be read: ${(cause as Error).message}`;
  }
}

function methodAccount({ net, metadata }: Model, policy: Policy): MethodAccount {
  const name = metadata.method ?? "spr2q";
  const rotations = macRows(net, policy).filter((row) => row.name.startsWith(ROTATION));
  return {
    name,
    title: METHODS.find((method) => method.name === name)?.title ?? null,
    tokenRanges: Object.keys(policy.tokenRanges ?? {}),
    rotations: rotations.map((row) => row.name.slice(ROTATION.length)),
    rotationMacs: rotations.reduce((sum, { macs }) => sum + macs, 0),
  };
}

/** Looks at a model file. Errors are those of openModel. */
export async function inspectModel(path: string): Promise<Inspection> {
  const model: Model = await openModel(path);
  const { net } = model;
  const { architecture, config } = net;
  const policy = model.quantised?.policy ?? null;
  const released = policy && policyFor("released", policy.bits, policy.leads);
  const table = policy && (await readRoutingTable(path));
  let boundBytes = 0;
  for (const [name, bytes] of model.stored) if (name.endsWith(".bounds")) boundBytes += bytes;
  return {
    model: path,
    architecture: architecture.name,
    scale: config.scale,
    config,
    sizes: architecture.describe(config),
    sha256: model.sha256,
    metadata: model.metadata,
    diskBytes: (await stat(path)).size,
    method: policy && methodAccount(model, policy),
    scope: policy?.scope ?? null,
    leads: policy?.leads ?? null,
    bits: siteBits(architecture, policy),
    size: sizeAccount(net, policy, model.stored),
    boundBytes,
    macs: macAccount(net, policy),
    unpaddedMacs: macAccount(net, policy, { ...countedInput(config.scale), padded: false }),
    releasedScope: released && {
      size: sizeAccount(net, released),
      macs: macAccount(net, released),
    },
    bounds: summariseBounds(model.quantised?.bounds ?? new Map()),
    routingTable: typeof table === "string" ? null : table,
    routingProblem: typeof table === "string" ? table : null,
  };
}

export const command = defineCommand({
  name: "inspect",
  summary: "show what a model file holds: bits, sizes, bounds, routing table",
  usage: "MODEL",
  positionals: { min: 1, max: 1, help: "MODEL, a .pth or .safetensors file" },
  options: [],
  async run(ctx) {
    const inspection = await inspectModel(ctx.positionals[0]);
    ctx.out(describeInspection(inspection));
    ctx.result(inspection);
  },
});
