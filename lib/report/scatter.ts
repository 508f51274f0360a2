/** Scatter plots as inline SVG: few labelled points, such as quality against size. */
import { escapeHtml, linearTicks, logTicks, SERIES_STYLES, tickLabel } from "./svg.ts";

/** One point; equal `series` share a colour and a mark. */
export interface Point {
  readonly label: string;
  readonly x: number;
  readonly y: number;
  readonly series: number;
}

/** A plot of points; the x axis is logarithmic, as sizes and times want. */
export interface Scatter {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly points: readonly Point[];
}

const WIDTH = 720;
const HEIGHT = 340;
const FRAME = { left: 76, right: 40, top: 18, bottom: 58 } as const;
/** Space around the outermost points, as a share of the axis. */
const MARGIN = 0.12;
/** Least ratio of the ends of the x axis: a lone point stands in the middle of one. */
const LEAST_RATIO = 1.6;

interface Axis {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

function xAxis(points: readonly Point[]): Axis {
  const logs = points.map(({ x }) => Math.log(x));
  let [low, high] = [Math.min(...logs), Math.max(...logs)];
  const spare = Math.max((high - low) * MARGIN, (Math.log(LEAST_RATIO) - (high - low)) / 2);
  [low, high] = [low - spare, high + spare];
  const span = WIDTH - FRAME.left - FRAME.right;
  const at = (value: number): number =>
    FRAME.left + ((Math.log(value) - low) / (high - low)) * span;
  const [least, most] = [Math.exp(low), Math.exp(high)];
  const powers = logTicks(least, most);
  return { at, ticks: powers.length >= 2 ? powers : linearTicks(least, most, 4) };
}

function yAxis(points: readonly Point[]): Axis {
  const values = points.map(({ y }) => y);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const spare = Math.max((high - low) * MARGIN, 0.05);
  [low, high] = [low - spare, high + spare];
  const bottom = HEIGHT - FRAME.bottom;
  const at = (value: number): number =>
    bottom - ((value - low) / (high - low)) * (bottom - FRAME.top);
  return { at, ticks: linearTicks(low, high, 5) };
}

function axes(plot: Scatter, x: Axis, y: Axis): string {
  const [right, bottom] = [WIDTH - FRAME.right, HEIGHT - FRAME.bottom];
  const rows = y.ticks.map((tick) => {
    const at = y.at(tick).toFixed(1);
    return (
      `<path class="grid" d="M${FRAME.left} ${at}H${right}"/><text class="tick" ` +
      `x="${FRAME.left - 8}" y="${at}" dy="0.35em" text-anchor="end">${tickLabel(tick)}</text>`
    );
  });
  const columns = x.ticks.map((tick) => {
    const at = x.at(tick).toFixed(1);
    return (
      `<path class="axis" d="M${at} ${bottom}v5"/><text class="tick" x="${at}" ` +
      `y="${bottom + 8}" dy="0.9em" text-anchor="middle">${tickLabel(tick)}</text>`
    );
  });
  return (
    rows.join("") +
    columns.join("") +
    `<path class="axis" d="M${FRAME.left} ${FRAME.top}V${bottom}H${right}"/>` +
    `<text class="label" x="${(FRAME.left + right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">` +
    `${escapeHtml(plot.xLabel)}</text>`
  );
}

/** Marks by series: circle, square, triangle, diamond. */
function mark(series: number, x: number, y: number): string {
  const shapes = [
    `<circle cx="${x}" cy="${y}" r="6"/>`,
    `<rect x="${x - 5.5}" y="${y - 5.5}" width="11" height="11"/>`,
    `<path d="M${x} ${y - 7}l6.5 12h-13z"/>`,
    `<path d="M${x} ${y - 7.5}l7.5 7.5l-7.5 7.5l-7.5 -7.5z"/>`,
  ];
  return shapes[series % shapes.length];
}

/** The plot as one `<svg>`; points whose x is not above 0 are left out. */
export function scatterPlot(plot: Scatter): string {
  const points = plot.points.filter(({ x, y }) => x > 0 && Number.isFinite(x + y));
  if (points.length === 0) return '<p class="empty">No values to draw.</p>';
  const [x, y] = [xAxis(points), yAxis(points)];
  const marks = points.map(({ label, x: px, y: py, series }) => {
    const [cx, cy] = [Number(x.at(px).toFixed(1)), Number(y.at(py).toFixed(1))];
    // Labels stay inside: to the left of points in the right half.
    const toLeft = cx > (WIDTH + FRAME.left) / 2;
    const text = escapeHtml(label);
    return (
      `<g class="point p${series % SERIES_STYLES}">` +
      `<title>${text}: ${py.toFixed(2)} at ${tickLabel(px)}</title>${mark(series, cx, cy)}` +
      `<text x="${toLeft ? cx - 12 : cx + 12}" y="${cy}" dy="0.35em" ` +
      `text-anchor="${toLeft ? "end" : "start"}">${text}</text></g>`
    );
  });
  return (
    `<svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" ` +
    `aria-label="${escapeHtml(plot.title)}">${axes(plot, x, y)}${marks.join("")}</svg>`
  );
}
