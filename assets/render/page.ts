/**
 * A printed page on a wooden desk, seen a little from the side: two sizes of text, an engraved
 * figure with very fine lines, and a pencil with its shadow across the corner.
 */
import { clamp, fractal, hash, hex, mix, type Rgb, scale, segment, smoothstep } from "./canvas.ts";
import { textDistance } from "./letters.ts";

const LINES = [
  "Letters are the hard",
  "part of a small image,",
  "for every stroke is as",
  "thin as one pixel and",
  "the eye knows where it",
  "should go.",
  "",
  "A network that keeps",
  "4, 2 or",
  "1 bit of",
  "each num-",
  "ber must",
  "tell an e",
  "from an o",
  "and an r",
  "from an n.",
];
/** Width of the page; its height follows from the lines. */
const PAGE_WIDTH = 1;
const PAGE_HEIGHT = 1.24;
/** Size of one grid unit of the small letters, and the distance of two lines, in page widths. */
const UNIT = 0.0068;
const LEADING = 0.057;

function wood(x: number, y: number): Rgb {
  const board = Math.floor(y * 3.1 + 0.2);
  const grain = fractal(x * 2.2 + board * 5, y * 46, 5, 90 + board);
  const ring = 0.5 + 0.5 * Math.sin(40 * y + 9 * fractal(x * 1.4, y * 4, 4, 70 + board));
  const colour = mix(hex("6d4427"), hex("b98352"), 0.65 * grain + 0.35 * ring);
  const gap = Math.abs(y * 3.1 + 0.2 - Math.round(y * 3.1 + 0.2));
  const dash = hash(Math.floor(x * 40), Math.floor(y * 300), 33) > 0.9 ? 0.82 : 1;
  return scale(colour, dash * (0.25 + 0.75 * smoothstep(0, 0.022, gap)));
}

/** The figure: a round engraving shaded by hatching in two directions; (x, y) from -1 to 1. */
function engraving(x: number, y: number): number {
  const r = Math.hypot(x, y);
  if (Math.abs(r - 1) < 0.012 || Math.abs(r - 0.95) < 0.006) return 1;
  if (r > 0.95) return 0;
  const sphere = Math.hypot(x + 0.02, y + 0.1);
  const hatch = (phase: number, width: number) => Math.abs((((phase % 1) + 1) % 1) - 0.5) < width;
  if (sphere < 0.6) {
    const light = clamp(-0.5 * x - 0.6 * y + Math.sqrt(Math.max(0, 0.36 - sphere * sphere)) * 0.95);
    const bend = x * x * 0.25;
    if (hatch((y + bend) * 15, 0.42 * (1 - light * 1.25))) return 1;
    if (light < 0.24 && hatch((x - y + bend) * 11, 0.16)) return 1;
    return Math.abs(sphere - 0.595) < 0.008 ? 1 : 0;
  }
  if (y > 0.3) return hatch(y * 22, 0.1 + 0.28 * smoothstep(0.75, 0, Math.abs(x - 0.25))) ? 1 : 0;
  return hatch((Math.atan2(y + 0.1, x + 0.02) * 48) / Math.PI, 0.1 + 0.12 * r) ? 0.9 : 0;
}

/** Ink between 0 and 1 at (x, y) on the page, x from 0 to 1, y downwards. */
function ink(x: number, y: number): number {
  const title = textDistance("Small Bits", (x - 0.1) / 0.0142, 8 - (y - 0.075) / 0.0142);
  if (title < 0.62) return 1;
  if (Math.abs(y - 0.225) < 0.0024 && x > 0.1 && x < 0.91) return 0.9;
  const row = Math.floor((y - 0.25) / LEADING);
  if (row >= 0 && row < LINES.length) {
    const gy = 8 - (y - 0.25 - row * LEADING) / UNIT;
    if (textDistance(LINES[row], (x - 0.1) / UNIT, gy) < 0.4) return 0.94;
  }
  const fx = (x - 0.695) / 0.225;
  const fy = (y - 0.955) / 0.225;
  return Math.abs(fx) < 1.1 && Math.abs(fy) < 1.1 ? engraving(fx, fy) : 0;
}

function paper(x: number, y: number): Rgb {
  const fibre = 0.955 + 0.06 * fractal(x * 60, y * 60, 4, 14) - 0.02 * fractal(x * 4, y * 4, 3, 15);
  const gutter = 0.72 + 0.28 * smoothstep(0, 0.13, x);
  const curl = 1 - 0.12 * smoothstep(0.55, 1, x) * smoothstep(0.4, 1.2, y);
  const base = scale(hex("f3ead6"), fibre * gutter * curl);
  const stamp = Math.hypot(x - 0.87, y - 0.5);
  const red = stamp < 0.07 && (stamp > 0.058 || (Math.abs(y - 0.5) < 0.022 && (x * 44) % 1 < 0.55));
  const worn = red && fractal(x * 70, y * 70, 3, 44) > 0.36;
  return mix(worn ? mix(base, hex("b5402c"), 0.8) : base, hex("23211f"), 0.93 * ink(x, y));
}

/** The pencil along its axis: `t` 0 at the tip to 1, `d` the signed distance from the axis. */
function pencil(t: number, d: number): Rgb | undefined {
  const radius = 0.023;
  const cone = smoothstep(0, 0.2, t);
  if (t < 0 || t > 1 || Math.abs(d) > radius * Math.min(1, t / 0.17)) return undefined;
  const side = d / radius;
  const round = 0.55 + 0.6 * Math.sqrt(Math.max(0, 1 - (side + 0.35) * (side + 0.35) * 0.6));
  if (t < 0.045) return scale(hex("2a2a2e"), round);
  const scallop = 0.165 + 0.02 * Math.abs(Math.sin(side * 4.6));
  if (t < scallop)
    return scale(
      hex("e2b980"),
      round * (0.85 + 0.3 * fractal(t * 90, d * 300, 3, 8)) * cone ** 0.1,
    );
  const facet = Math.abs(side) < 0.36 ? 1.12 : side < 0 ? 0.95 : 0.6;
  return scale(hex("2f6f8f"), round * facet + (Math.abs(side + 0.22) < 0.05 ? 0.35 : 0));
}

/** The page on its desk at (u, v). */
export function page(u: number, v: number): Rgb {
  // The view: turned by a few degrees, the far edge smaller than the near one.
  const depth = 1 / (0.84 + 0.2 * v);
  const cx = (u - 0.5) * depth * 1.16;
  const cy = (v - 0.47) * depth * 1.36;
  const angle = 0.105;
  const x = cx * Math.cos(angle) + cy * Math.sin(angle) + 0.5 * PAGE_WIDTH;
  const y = -cx * Math.sin(angle) + cy * Math.cos(angle) + 0.5 * PAGE_HEIGHT + 0.02;
  const light = 1.08 - 0.35 * Math.hypot(u - 0.25, v - 0.2) ** 1.3;

  const [tipX, tipY, endX, endY] = [0.56, 0.585, 1.12, 0.86];
  const length = Math.hypot(endX - tipX, endY - tipY);
  const along = ((x - tipX) * (endX - tipX) + (y - tipY) * (endY - tipY)) / (length * length);
  const across = ((x - tipX) * (endY - tipY) - (y - tipY) * (endX - tipX)) / length;
  const drawn = pencil(along, across);
  if (drawn !== undefined) return scale(drawn, light);
  const shade = segment(x - 0.018, y - 0.03, tipX, tipY, endX, endY);
  const shadow = 1 - 0.45 * (1 - smoothstep(0.008, 0.045, shade));

  const outside = Math.max(-x, x - PAGE_WIDTH, -y, y - PAGE_HEIGHT);
  if (outside <= 0) return scale(paper(x, y), light * shadow);
  const dropX = Math.max(-x - 0.01, x - PAGE_WIDTH - 0.02, -y, y - PAGE_HEIGHT - 0.02);
  const under = 0.45 + 0.55 * smoothstep(-0.015, 0.06, dropX);
  return scale(wood(x, y), light * under * shadow * 0.95);
}
