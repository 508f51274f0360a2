/**
 * Inline SVG for the report: line plots as strings. Colours come from the page's CSS
 * classes, so the same drawing serves light, dark and print; every text is escaped.
 */
import { expected } from "../errors.ts";

/** One labelled line; `y[i]` belongs to the plot's `x[i]`; what is not finite leaves a gap. */
export interface Series {
  readonly label: string;
  readonly y: readonly number[];
}

/** A line plot. With `logY` the y axis is logarithmic and values of 0 or less leave a gap. */
export interface Curve {
  readonly title: string;
  readonly x: readonly number[];
  readonly series: readonly Series[];
  readonly xLabel: string;
  readonly yLabel: string;
  readonly logY?: boolean;
}

/** Distinct line styles of the page; further series start over. */
export const SERIES_STYLES = 7;

/** Drawing units of a plot; the page stretches it to the width it has. */
const WIDTH = 720;
const HEIGHT = 320;
const FRAME = { left: 76, right: 24, top: 12, bottom: 58 } as const;
/** A line of more points than this is drawn faintly, with its running mean over 1/100 on top. */
const NOISY_POINTS = 300;
/** More points than this per line are thinned to the least and greatest of each bin. */
const MAX_POINTS = 1200;

/** Escapes text for HTML and XML, inside elements and inside quoted attributes. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

/** Ticks at 1, 2 or 5 times a power of ten covering [low, high], about `count` of them. */
export function linearTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((k) => k * power >= rough * 0.999) ?? 10);
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten in [low, high]; with fewer than three of them also 2 and 5 times those. */
export function logTicks(low: number, high: number): number[] {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const within = (tick: number) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9);
  const make = (factors: readonly number[]) => {
    const ticks: number[] = [];
    for (let e = first; e <= last; e++) {
      for (const k of factors) ticks.push(Number(`${k}e${e}`));
    }
    return ticks.filter(within);
  };
  const decades = make([1]);
  if (decades.length < 3) return make([1, 2, 5]);
  const stride = Math.ceil(decades.length / 6);
  return decades.filter((_, i) => i % stride === 0);
}

/** A tick label of at most seven characters or so: 0.05, 12k, 3e-7. */
export function tickLabel(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3)
    return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return String(Number(value.toPrecision(5)));
}

function checkCurve(curve: Curve): void {
  for (const { label, y } of curve.series) {
    if (y.length !== curve.x.length) {
      const what = `series "${label}" of plot "${curve.title}"`;
      throw expected("ERR_ARGUMENT", what, `${curve.x.length} values`, String(y.length));
    }
  }
}

/** Least and greatest of the usable values; undefined where there are none. */
function extent(values: readonly number[]): [number, number] | undefined {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : undefined;
}

/** Indices to draw: all of them, or the extremes of each of MAX_POINTS / 2 bins. */
function thinned(y: readonly number[]): number[] {
  if (y.length <= MAX_POINTS) return y.map((_, i) => i);
  const kept: number[] = [];
  const bins = MAX_POINTS / 2;
  for (let bin = 0; bin < bins; bin++) {
    const from = Math.floor((bin * y.length) / bins);
    const to = Math.floor(((bin + 1) * y.length) / bins);
    let least = from;
    let most = from;
    for (let i = from; i < to; i++) {
      if (y[i] < y[least] || !Number.isFinite(y[least])) least = i;
      if (y[i] > y[most] || !Number.isFinite(y[most])) most = i;
    }
    kept.push(Math.min(least, most));
    if (least !== most) kept.push(Math.max(least, most));
  }
  return kept;
}

type Axis = (value: number) => number;

/** Path of one line, a new stretch after each gap; a lone point becomes a dot by its round cap. */
function linePath(curve: Curve, y: readonly number[], toX: Axis, toY: Axis): string {
  let path = "";
  let open = false;
  for (const i of thinned(y)) {
    const usable =
      Number.isFinite(curve.x[i]) && Number.isFinite(y[i]) && !(curve.logY && y[i] <= 0);
    if (usable) {
      const point = `${toX(curve.x[i]).toFixed(1)} ${toY(y[i]).toFixed(1)}`;
      path += open ? `L${point}` : `M${point}L${point}`;
    }
    open = usable;
  }
  return path;
}

/** Points on either side that {@link linePlot} averages for a line of `count` points; 0: none. */
export function meanReach(count: number): number {
  return count > NOISY_POINTS ? Math.round(count / 200) : 0;
}

/** Mean of each value and its `reach` neighbours on either side, of those that are usable. */
export function runningMean(y: readonly number[], reach: number): number[] {
  return y.map((_, i) => {
    const near = y.slice(Math.max(0, i - reach), i + reach + 1).filter(Number.isFinite);
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}

interface Scale {
  readonly toAxis: Axis;
  readonly ticks: readonly number[];
}

function yScale(curve: Curve): Scale | undefined {
  const all = curve.series.flatMap((s) => s.y.filter((v) => !curve.logY || v > 0));
  const range = extent(all);
  if (range === undefined) return undefined;
  let [low, high] = range;
  const bottom = HEIGHT - FRAME.bottom;
  const span = bottom - FRAME.top;
  if (curve.logY) {
    if (low === high) [low, high] = [low / 2, high * 2];
    const ratio = Math.log(high / low);
    const toAxis = (v: number) => bottom - (Math.log(v / low) / ratio) * span;
    return { toAxis, ticks: logTicks(low, high) };
  }
  const margin = (high - low) * 0.04 || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - margin, high + margin];
  const toAxis = (v: number) => bottom - ((v - low) / (high - low)) * span;
  return { toAxis, ticks: linearTicks(low, high, 6) };
}

function xScale(curve: Curve): Scale | undefined {
  const range = extent(curve.x);
  if (range === undefined) return undefined;
  let [low, high] = range;
  if (low === high) [low, high] = [low - 1, high + 1];
  const span = WIDTH - FRAME.left - FRAME.right;
  const toAxis = (v: number) => FRAME.left + ((v - low) / (high - low)) * span;
  return { toAxis, ticks: linearTicks(low, high, 6) };
}

function axes(curve: Curve, x: Scale, y: Scale): string {
  const right = WIDTH - FRAME.right;
  const bottom = HEIGHT - FRAME.bottom;
  const rows = y.ticks.map((tick) => {
    const at = y.toAxis(tick).toFixed(1);
    return (
      `<path class="grid" d="M${FRAME.left} ${at}H${right}"/>` +
      `<text class="tick" x="${FRAME.left - 8}" y="${at}" dy="0.35em" text-anchor="end">` +
      `${tickLabel(tick)}</text>`
    );
  });
  const columns = x.ticks.map((tick) => {
    const at = x.toAxis(tick).toFixed(1);
    return (
      `<path class="axis" d="M${at} ${bottom}v5"/>` +
      `<text class="tick" x="${at}" y="${bottom + 8}" dy="0.9em" text-anchor="middle">` +
      `${tickLabel(tick)}</text>`
    );
  });
  return (
    rows.join("") +
    columns.join("") +
    `<path class="axis" d="M${FRAME.left} ${FRAME.top}V${bottom}H${right}"/>` +
    `<text class="label" x="${(FRAME.left + right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">` +
    `${escapeHtml(curve.xLabel)}</text>`
  );
}

/**
 * A line plot as one `<svg>` element, or a paragraph saying so where there is nothing to draw.
 * Line k has the class `s0` to `s5`.
 * @throws ERR_ARGUMENT where a series is longer or shorter than x.
 */
export function linePlot(curve: Curve): string {
  checkCurve(curve);
  const x = xScale(curve);
  const y = yScale(curve);
  if (x === undefined || y === undefined) return '<p class="empty">No values to draw.</p>';
  const lines = curve.series.map((series, i) => {
    const style = `s${i % SERIES_STYLES}`;
    const title = `<title>${escapeHtml(series.label)}</title>`;
    const draw = (kind: string, values: readonly number[]) =>
      `<path class="${kind} ${style}" ` +
      `d="${linePath(curve, values, x.toAxis, y.toAxis)}">${title}</path>`;
    const reach = meanReach(series.y.length);
    if (reach === 0) return draw("line", series.y);
    return draw("raw", series.y) + draw("line", runningMean(series.y, reach));
  });
  return (
    `<svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" ` +
    `aria-label="${escapeHtml(curve.title)}">${axes(curve, x, y)}${lines.join("")}</svg>`
  );
}
