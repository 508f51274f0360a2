/**
 * The one-file report of a run: facts, a table, before/after pictures, curves and the routing
 * table, in one HTML text that needs no network. Open it from disk, mail it, print it.
 */
import { expected } from "../errors.ts";
import { type HeatMap, heatMap } from "./heat.ts";
import { SCRIPT, STYLE } from "./look.ts";
import { type Scatter, scatterPlot } from "./scatter.ts";
import { type Curve, escapeHtml, linePlot, meanReach, SERIES_STYLES } from "./svg.ts";

/** One side of a comparison: a PNG file in base64 (no `data:` prefix) and its short label. */
export interface ReportImage {
  readonly label: string;
  readonly pngBase64: string;
}

/** Two pictures of the same thing under one slider; the right one gives the proportions. */
export interface Comparison {
  readonly name: string;
  readonly left: ReportImage;
  readonly right: ReportImage;
  readonly caption: string;
}

/** A table; a column whose cells are all numbers (or look like ones) is set to the right. */
export interface ReportTable {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}

/** Everything a report shows. Empty lists leave their section out. */
export interface RunReport {
  readonly title: string;
  /** The command that makes this result again. */
  readonly command: string;
  readonly facts: readonly (readonly [label: string, value: string])[];
  readonly table: ReportTable;
  readonly comparisons: readonly Comparison[];
  readonly curves: readonly Curve[];
  readonly scatters?: readonly Scatter[];
  readonly heatMap?: HeatMap;
}

/** First bytes of every PNG file, in base64. */
const PNG_MARK = "iVBORw0KGgo";

/** Width and height in the header of a PNG in base64. */
function pngSize(image: ReportImage): { width: number; height: number } {
  const { pngBase64 } = image;
  const isPng = pngBase64.startsWith(PNG_MARK) && /^[A-Za-z0-9+/]+={0,2}$/.test(pngBase64);
  const head = Buffer.from(isPng ? pngBase64.slice(0, 32) : "", "base64");
  if (head.length < 24) {
    const got = pngBase64 === "" ? "an empty text" : `"${pngBase64.slice(0, 16)}…"`;
    throw expected("ERR_ARGUMENT", `image "${image.label}" of the report`, "a PNG in base64", got);
  }
  return { width: head.readUInt32BE(16), height: head.readUInt32BE(20) };
}

function looksNumeric(cell: string | number): boolean {
  return typeof cell === "number" || /^[-+−±–]?[\d.,]*\s?(%|dB|MiB|KiB|s|ms|×|x)?$/.test(cell);
}

function tableHtml(table: ReportTable): string {
  const width = table.columns.length;
  for (const row of table.rows) {
    if (row.length !== width) {
      throw expected(
        "ERR_ARGUMENT",
        "a table row of the report",
        `${width} cells`,
        `${row.length}`,
      );
    }
  }
  const numeric = table.columns.map((_, j) => table.rows.every((row) => looksNumeric(row[j])));
  const kind = (j: number) => (numeric[j] ? ' class="number"' : "");
  const heads = table.columns.map((c, j) => `<th scope="col"${kind(j)}>${escapeHtml(c)}</th>`);
  const rows = table.rows.map((row) => {
    const cells = row.map((cell, j) => `<td${kind(j)}>${escapeHtml(String(cell))}</td>`);
    return `<tr>${cells.join("")}</tr>`;
  });
  return (
    `<div class="wide" tabindex="0" role="region" aria-label="Results"><table><thead><tr>` +
    `${heads.join("")}</tr></thead><tbody>\n${rows.join("\n")}\n</tbody></table></div>`
  );
}

function imageTag(image: ReportImage): string {
  const { width, height } = pngSize(image);
  const source = `data:image/png;base64,${image.pngBase64}`;
  const alt = escapeHtml(image.label);
  return `<img src="${source}" width="${width}" height="${height}" alt="${alt}">`;
}

function comparisonHtml(pair: Comparison): string {
  const [left, right] = [escapeHtml(pair.left.label), escapeHtml(pair.right.label)];
  const name = escapeHtml(pair.name);
  const spoken = `${name}: how much of ${left} covers ${right}, in percent`;
  const caption = pair.caption === "" ? "" : `<p>${escapeHtml(pair.caption)}</p>`;
  return (
    `<figure><figcaption><h3>${name}</h3>${caption}</figcaption>` +
    `<div class="stage">${imageTag(pair.right)}<div class="left">${imageTag(pair.left)}</div>` +
    `<div class="bar"></div><span class="tag at-left">${left}</span>` +
    `<span class="tag at-right">${right}</span>` +
    `<input type="range" min="0" max="100" step="1" value="50" aria-label="${spoken}">` +
    `</div></figure>`
  );
}

function curveHtml(curve: Curve): string {
  const entries = curve.series.map((series, i) => {
    const swatch = `<path class="line s${i % SERIES_STYLES}" d="M2 5H28"/>`;
    const label = escapeHtml(series.label);
    return `<li><svg viewBox="0 0 30 10" aria-hidden="true">${swatch}</svg>${label}</li>`;
  });
  const reach = meanReach(curve.x.length);
  const scale = curve.logY ? ", logarithmic" : "";
  const mean = reach === 0 ? "" : `; line: mean of ${2 * reach + 1} points`;
  return (
    `<section class="curve"><h3>${escapeHtml(curve.title)}</h3>` +
    `<p class="unit">${escapeHtml(curve.yLabel)}${scale}${mean}</p>` +
    `<ul class="legend">${entries.join("")}</ul>${linePlot(curve)}</section>`
  );
}

function scatterHtml(plot: Scatter): string {
  return (
    `<section class="curve"><h3>${escapeHtml(plot.title)}</h3>` +
    `<p class="unit">${escapeHtml(plot.yLabel)}</p>${scatterPlot(plot)}</section>`
  );
}

function section(heading: string, parts: readonly string[]): string {
  return parts.length === 0 ? "" : `<h2>${escapeHtml(heading)}</h2>\n${parts.join("\n")}\n`;
}

/**
 * The report as one HTML text. All texts of the report are escaped, and the page's own policy
 * forbids every request, so a file name or label cannot smuggle anything in.
 * @throws ERR_ARGUMENT where an image is no PNG in base64 or lengths do not fit.
 */
export function renderReport(report: RunReport): string {
  const facts = report.facts.map(
    ([label, value]) => `<div><dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}</dd></div>`,
  );
  const pairs = report.comparisons.map(comparisonHtml).join("\n");
  const map = report.heatMap;
  const howTo = "<span>Drag a picture, or focus it and use the arrow keys. </span>";
  const hint = pairs === "" ? "" : howTo;
  const body =
    section("Results", report.table.rows.length === 0 ? [] : [tableHtml(report.table)]) +
    section("Before and after", pairs === "" ? [] : [`<div class="pairs">${pairs}</div>`]) +
    section("Quality against size and time", (report.scatters ?? []).map(scatterHtml)) +
    section("Curves", report.curves.map(curveHtml)) +
    (map === undefined ? "" : section(map.title, [`<div class="wide">${heatMap(map)}</div>`]));
  const policy =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${escapeHtml(report.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(report.title)}</h1>
<pre><code>${escapeHtml(report.command)}</code></pre>
${facts.length === 0 ? "" : `<dl>${facts.join("\n")}</dl>`}
${body}<footer>${hint}Written by spr2q.</footer>
</main>
<script>${SCRIPT}</script>
</body>
</html>
`;
}
