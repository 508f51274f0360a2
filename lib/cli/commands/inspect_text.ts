/** What `spr2q inspect` shows to people: the object of inspect.ts as aligned text. */
import { tokensOf } from "../../quant/accounts.ts";
import type { Inspection, RoutingGates } from "./inspect.ts";

/** A gate in eighths, from nothing to all of it. */
const BLOCKS = "·▁▂▃▄▅▆▇█";
/** Width of the column of names. */
const NAME_WIDTH = 24;

const row = (name: string, text: string): string => `  ${name.padEnd(NAME_WIDTH)}${text}`;
const giga = (count: number): string => `${(count / 1e9).toFixed(3)} G`;
const grouped = (count: number): string => count.toLocaleString("en-US");

/** One character per gate: its height is its weight in the mixture. */
export function gateBlocks(gates: readonly number[]): string {
  return gates.map((gate) => BLOCKS[Math.round(gate * (BLOCKS.length - 1))]).join("");
}

/**
 * The routing table as text: a line per layer, a group of blocks per rectified module in it. Keys
 * that belong to no layer get a line of their own.
 */
export function routingHeatMap(layers: RoutingGates["layers"]): string[] {
  const modules: string[] = [];
  const lines = new Map<string, Map<string, string>>();
  for (const [key, gates] of Object.entries(layers)) {
    const match = /^layers\.(\d+)\.residual_group\.(?:layers|blocks)\.(\d+)\.(.+)$/.exec(key);
    const [line, module] = match ? [`${match[1]}.${match[2]}`, match[3]] : [key, ""];
    if (!modules.includes(module)) modules.push(module);
    const cells = lines.get(line) ?? new Map<string, string>();
    lines.set(line, cells.set(module, gateBlocks(gates)));
  }
  const nameWidth = Math.max(2, ...[...lines.keys()].map((line) => line.length)) + 2;
  const cellWidths = modules.map((module, i) => {
    const cells = [...lines.values()].map((line) => line.get(module)?.length ?? 0);
    return Math.max(`${i + 1}`.length, ...cells) + 1;
  });
  const heads = modules.map((_, i) => `${i + 1}`.padEnd(cellWidths[i])).join("");
  const legend = modules.map((module, i) => `${i + 1} ${module || "(whole)"}`).join(", ");
  const body = [...lines].map(([line, cells]) => {
    const blocks = modules.map((module, i) => (cells.get(module) ?? "").padEnd(cellWidths[i]));
    return `  ${line.padEnd(nameWidth)}${blocks.join("")}`.trimEnd();
  });
  return [`  ${" ".repeat(nameWidth)}${heads}`.trimEnd(), ...body, `  columns: ${legend}`];
}

function header(i: Inspection): string[] {
  const { channels, depths, heads, window } = i.config;
  const network = `${channels} channels, layers ${depths.join("+")}, ${heads} heads, window ${window}`;
  const told = (names: readonly string[]): string =>
    names
      .filter((name) => i.metadata[name] !== undefined)
      .map((name) => `${name} ${i.metadata[name]}`)
      .join(", ");
  const made = told([
    "recipe",
    "seed",
    "rectifiers",
    "rank",
    "iterations",
    "osrc",
    "batch",
    "patch",
    "condition_numbers",
  ]);
  const origin = told(["library", "source_sha256"]);
  return [
    i.model,
    row("architecture", `${i.architecture} x${i.scale}: ${network}, ${i.sizes}`),
    ...methodRows(i),
    ...(made ? [row("made with", made)] : []),
    ...(origin ? [row("made from", origin)] : []),
    row("SHA-256", i.sha256),
  ];
}

/** The method, and what it adds to inference. */
function methodRows({ method }: Inspection): string[] {
  if (method === null) return [];
  const { name, title, tokenRanges, rotations, rotationMacs } = method;
  const rows = [
    row("method", title === null || title.startsWith(name) ? (title ?? name) : `${name}: ${title}`),
  ];
  if (rotations.length > 0) {
    const where = `inputs of ${rotations.join(" and ")}`;
    rows.push(row("online rotations", `${where}: ${giga(rotationMacs)} MACs in float`));
  }
  if (tokenRanges.length > 0) {
    const how = "products in float of coded operands, op by op";
    rows.push(row("ranges by token", `inputs of ${tokenRanges.join(", ")}: ${how}`));
  }
  return rows;
}

function bitsSection(i: Inspection): string[] {
  const { bits, leads, scope } = i;
  if (scope === null || leads === null) return ["Bits", row("everything", "float")];
  const width = (n: number, remark = ""): string => (n === 32 ? "float" : `${n} bit${remark}`);
  const rows = leads.rowBounds ? ", bounds per output channel" : "";
  const offsets = leads.channelOffsets ? ", an offset per channel" : "";
  const half = `, half-exponent codes: ${bits.probabilityOperand} bit where they meet v`;
  const names = Object.entries(leads)
    .filter(([, on]) => on)
    .map(([name]) => name);
  return [
    `Bits (scope ${scope}, leads: ${names.join(", ") || "none"})`,
    row("weights", width(bits.weights, rows)),
    row("activations", width(bits.activations, offsets)),
    row("attention q, k, v", width(bits.attention)),
    row("softmax probabilities", width(bits.probabilities, leads.halfExponent ? half : "")),
    ...(bits.positionalConvolution === null
      ? []
      : [row("CPE convolution", width(bits.positionalConvolution))]),
    ...(bits.scanOperands === null ? [] : [row("scan operands", width(bits.scanOperands))]),
  ];
}

function sizeSection({ size, diskBytes, boundBytes }: Inspection): string[] {
  const { parameters, quantisedParameters, mebibytes, ratio, withoutTables } = size;
  const quantised = quantisedParameters > 0;
  const rule = quantised
    ? `, 1/${ratio.toFixed(3)} of float (float 4 bytes, quantised n/8; ${grouped(boundBytes)} bytes of bounds not counted)`
    : " (4 bytes a parameter)";
  const share = quantised ? `, 1/${withoutTables.ratio.toFixed(3)} of float` : "";
  return [
    "Size",
    row("parameters", `${grouped(parameters)}, ${grouped(quantisedParameters)} of them quantised`),
    row("counted", `${mebibytes.toFixed(4)} MiB${rule}`),
    row(
      "counted by 2DQuant",
      `${withoutTables.megabytes.toFixed(4)} MB${share} (without position tables)`,
    ),
    row("on disk", `${(diskBytes / 2 ** 20).toFixed(4)} MiB (${grouped(diskBytes)} bytes)`),
  ];
}

function macSection(i: Inspection): string[] {
  const { macs, unpaddedMacs, config } = i;
  const { width, height } = macs.input;
  const columns = Math.ceil(width / config.window) * config.window;
  const padded = `${columns}x${tokensOf(config, macs.input) / columns}`;
  const released = i.releasedScope;
  return [
    `MACs for ${width}x${height} pixels in, padded to ${padded} (a price, not a measured speed)`,
    row("all, as if float", `${giga(macs.macs)} (${giga(unpaddedMacs.macs)} without padding)`),
    ...(released
      ? [
          row(
            "priced bits/32",
            `${giga(macs.priced)}, 1/${macs.ratio.toFixed(3)} of float (${giga(unpaddedMacs.priced)} without padding)`,
          ),
          row(
            "as Table 4 prices",
            `${giga(macs.pricedUniform)} (every quantised product at n bits)`,
          ),
          row(
            "bit operations",
            `${(macs.bitOperations / 1e12).toFixed(3)} T (of ${((macs.macs * 1024) / 1e12).toFixed(3)} T)`,
          ),
          row(
            "at scope released",
            `${released.size.mebibytes.toFixed(4)} MiB, ${giga(released.macs.priced)}`,
          ),
        ]
      : []),
  ];
}

function boundsSection({ bounds }: Inspection): string[] {
  if (bounds.length === 0) return [];
  const number = (value: number): string => value.toPrecision(4).padStart(12);
  const width = Math.max(...bounds.map(({ kind }) => kind.length)) + 2;
  const heads = ["sites", "ranges"].map((head) => head.padStart(8));
  const columns = ["min", "median", "max"].map((head) => head.padStart(12));
  return [
    "Ranges of the bounds",
    `  ${" ".repeat(width)}${[...heads, ...columns].join("")}`,
    ...bounds.map(({ kind, sites, ranges, min, median, max }) => {
      const counts = [sites, ranges].map((count) => `${count}`.padStart(8)).join("");
      return `  ${kind.padEnd(width)}${counts}${number(min)}${number(median)}${number(max)}`;
    }),
  ];
}

function routingSection({ routingTable, routingProblem }: Inspection): string[] {
  if (routingProblem !== null) return [`Routing table not shown: ${routingProblem}`];
  if (routingTable === null) return [];
  const { file, layers, lossBefore, lossAfter } = routingTable;
  const losses =
    lossBefore !== null && lossAfter !== null
      ? `, calibration loss ${lossBefore.toPrecision(4)} -> ${lossAfter.toPrecision(4)}`
      : "";
  return [`Routing table (${file}${losses})`, ...routingHeatMap(layers)];
}

/** The whole text of `spr2q inspect`. */
export function describeInspection(inspection: Inspection): string {
  const sections = [
    header,
    bitsSection,
    sizeSection,
    macSection,
    boundsSection,
    routingSection,
  ].map((section) => section(inspection));
  return sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n");
}
