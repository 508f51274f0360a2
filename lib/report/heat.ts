/**
 * Heat maps as inline SVG: a grid of values from 0 to 1, the number written in every cell.
 */
import { expected } from "../errors.ts";
import { escapeHtml } from "./svg.ts";

/** Values from 0 to 1 by row and column, for example the routing table: layer by rectifier. */
export interface HeatMap {
  readonly title: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly values: readonly (readonly number[])[];
}

/** From this value on the cell is dark enough for white digits. */
const WHITE_FROM = 0.8;

function checkHeatMap(map: HeatMap): void {
  const wanted = `${map.rows.length} rows of ${map.columns.length} values`;
  const bad = map.values.find((row) => row.length !== map.columns.length);
  if (map.values.length !== map.rows.length || bad !== undefined) {
    const got = bad === undefined ? `${map.values.length} rows` : `a row of ${bad.length}`;
    throw expected("ERR_ARGUMENT", `values of heat map "${map.title}"`, wanted, got);
  }
}

/**
 * A heat map as one `<svg>` element in its natural size: a cell's opacity is its value (limited to
 * 0 to 1), the number stands in it. @throws ERR_ARGUMENT where values do not fit rows and columns.
 */
export function heatMap(map: HeatMap): string {
  checkHeatMap(map);
  const letters = Math.max(4, ...map.rows.map((row) => row.length));
  const left = Math.min(300, 12 + letters * 7.2);
  const [cellWidth, cellHeight, top] = [64, 20, 26];
  const width = left + map.columns.length * cellWidth + 2;
  const height = top + map.rows.length * cellHeight + 2;
  const heads = map.columns.map((column, j) => {
    const at = left + (j + 0.5) * cellWidth;
    return `<text class="tick" x="${at}" y="17" text-anchor="middle">${escapeHtml(column)}</text>`;
  });
  const body = map.values.map((row, i) => {
    const y = top + i * cellHeight;
    const name = escapeHtml(map.rows[i]);
    const label =
      `<text class="tick" x="${left - 8}" y="${y + 14}" text-anchor="end">` + `${name}</text>`;
    const cells = row.map((value, j) => {
      const known = Number.isFinite(value);
      const weight = known ? Math.min(1, Math.max(0, value)) : 0;
      const x = left + j * cellWidth;
      return (
        `<g><title>${name}, ${escapeHtml(map.columns[j])}: ${known ? value : "none"}</title>` +
        `<rect class="cell" x="${x}" y="${y}" ` +
        `width="${cellWidth - 2}" height="${cellHeight - 2}" ` +
        `fill-opacity="${(0.05 + 0.95 * weight).toFixed(3)}"/>` +
        `<text class="${weight > WHITE_FROM ? "cell-strong" : "cell-weak"}" ` +
        `x="${x + cellWidth / 2 - 1}" ` +
        `y="${y + 13.5}" text-anchor="middle">${known ? value.toFixed(2) : "–"}</text></g>`
      );
    });
    return label + cells.join("");
  });
  return (
    `<svg class="heat" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `role="img" aria-label="${escapeHtml(map.title)}">${heads.join("")}${body.join("")}</svg>`
  );
}
