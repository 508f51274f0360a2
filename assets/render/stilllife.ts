/**
 * A still life: an orange, an apple, a striped bowl and a ball of glazed clay on a woven cloth.
 * Rays march through distance functions; a wide lamp at the upper left throws soft shadows.
 */
import { clamp, fractal, hex, mix, noise, type Rgb, scale, smoothstep, tint } from "./canvas.ts";

type Vec = readonly [number, number, number];

/** What a ray can meet, by its place in `distances`; the last there is the backdrop. */
const CLOTH = 0;
const ORANGE = 1;
const APPLE = 2;
const BOWL = 3;
const BALL = 4;

const LAMP: Vec = [-0.52, 0.68, -0.52];
const CAMERA: Vec = [0, 1.02, -3.1];

const length = (p: Vec): number => Math.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2]);
const dot = (a: Vec, b: Vec): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const along = (o: Vec, d: Vec, t: number): Vec => [
  o[0] + d[0] * t,
  o[1] + d[1] * t,
  o[2] + d[2] * t,
];
const minus = (a: Vec, b: Vec): Vec => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const unit = (a: Vec): Vec => {
  const k = 1 / length(a);
  return [a[0] * k, a[1] * k, a[2] * k];
};

const ORANGE_AT: Vec = [-0.62, 0.4, -0.38];
const APPLE_AT: Vec = [0.16, 0.27, -0.72];
const BOWL_AT: Vec = [0.38, 0, 0.5];
const BALL_AT: Vec = [0.86, 0.25, -0.5];

function appleDistance(p: Vec): number {
  const q = minus(p, APPLE_AT);
  const r = Math.hypot(q[0], q[2]);
  const body = Math.hypot(r - 0.115, q[1] * 0.9) - 0.27 - 0.045 * q[1];
  const stem = Math.hypot(q[0] - 0.12 * (q[1] - 0.1), q[2]) - 0.016;
  return Math.min(body * 0.9, Math.max(stem, q[1] - 0.42, 0.02 - q[1]) * 0.8);
}

/** The bowl: a shell of a stretched half sphere on a foot. */
function bowlDistance(p: Vec): number {
  const q = minus(p, BOWL_AT);
  const r = Math.hypot(q[0], q[2]);
  const shell = Math.abs(Math.hypot(r, (q[1] - 0.86) * 1.05) - 0.8) - 0.028;
  const rim = Math.hypot(r - 0.79, q[1] - 0.84) - 0.034;
  const foot = Math.max(Math.abs(r - 0.3) - 0.05, q[1] - 0.12, -q[1]);
  return Math.min(Math.max(shell, q[1] - 0.84) * 0.9, rim, foot);
}

function clothHeight(x: number, z: number): number {
  return 0.035 * Math.sin(2.1 * x + 1.3 * z + 0.8 * Math.sin(1.7 * z)) - 0.035;
}

function distances(p: Vec): number[] {
  const q = minus(p, ORANGE_AT);
  return [
    (p[1] - clothHeight(p[0], p[2])) * 0.9,
    length([q[0], q[1] * 1.05, q[2]]) - 0.41,
    appleDistance(p),
    bowlDistance(p),
    length(minus(p, BALL_AT)) - 0.25,
    2.3 - p[2],
  ];
}

function nearest(p: Vec): number {
  return Math.min(...distances(p));
}

function march(origin: Vec, ray: Vec): number {
  let t = 0.6;
  for (let i = 0; i < 90 && t < 9; i++) {
    const d = nearest(along(origin, ray, t));
    if (d < 0.0008) break;
    t += d;
  }
  return t;
}

/** 1 in full light, 0 in shadow; clearance over distance gives the penumbra of a wide lamp. */
function lampVisible(p: Vec): number {
  let light = 1;
  let t = 0.03;
  for (let i = 0; i < 32 && t < 2.6; i++) {
    const d = nearest(along(p, LAMP, t));
    light = Math.min(light, 0.5 + (0.5 * d) / (0.11 * t));
    if (light <= 0) return 0;
    t += clamp(d, 0.02, 0.25);
  }
  return light * light * (3 - 2 * light);
}

/** How open the surroundings are: 1 free, 0 in a corner. */
function openness(p: Vec, n: Vec): number {
  let closed = 0;
  for (let i = 1; i <= 4; i++) {
    const step = 0.07 * i;
    closed += (step - nearest(along(p, n, step))) / 2 ** i;
  }
  return clamp(1 - 3.6 * closed, 0, 1);
}

function normalAt(p: Vec): Vec {
  const e = 0.0012;
  const d = nearest(p);
  return unit([
    nearest([p[0] + e, p[1], p[2]]) - d,
    nearest([p[0], p[1] + e, p[2]]) - d,
    nearest([p[0], p[1], p[2] + e]) - d,
  ]);
}

/** Woven cloth: threads over and under, a band of colour every few, and a fringe of darker weft. */
function clothColour(x: number, z: number): Rgb {
  const u = x * 0.94 + z * 0.34;
  const w = -x * 0.34 + z * 0.94;
  const tu = u * 34;
  const tw = w * 34;
  const over = (Math.floor(tu) + Math.floor(tw)) & 1;
  const thread = over ? Math.abs(Math.sin(Math.PI * tw)) : Math.abs(Math.sin(Math.PI * tu));
  const band = (k: number) => ((k % 1) + 1) % 1 < 0.3;
  const across = band(u * 1.7 + 0.1);
  const down = band(w * 1.7 + 0.3);
  const base = hex("e9e1cf");
  const blue = hex("2f6f8f");
  const colour = across && down ? scale(blue, 0.5) : across || down ? mix(base, blue, 0.62) : base;
  return scale(colour, (0.66 + 0.4 * thread) * (0.9 + 0.2 * fractal(x * 20, z * 20, 3, 5)));
}

/** Skin of the fruits and glaze of the pots. */
function surfaceColour(kind: number, p: Vec): Rgb {
  if (kind === CLOTH) return clothColour(p[0], p[2]);
  if (kind === ORANGE) {
    const q = minus(p, ORANGE_AT);
    const pores = fractal(Math.atan2(q[0], -q[2]) * 14, q[1] * 36, 2, 71);
    return scale(
      mix(hex("d9700f"), hex("f0a030"), fractal(q[0] * 4, q[1] * 4, 3, 7)),
      0.7 + 0.5 * pores,
    );
  }
  if (kind === APPLE) {
    const q = minus(p, APPLE_AT);
    const r = Math.hypot(q[0], q[2]);
    if (r < 0.05 && q[1] > 0.12) return hex("4a3524");
    const streak = fractal(Math.atan2(q[0], q[2]) * 11, q[1] * 2.2, 4, 19);
    const blush = smoothstep(0.25, 0.75, streak + 0.5 * q[0] + 0.35 * q[1] + 0.1);
    const speck = 0.35 * smoothstep(0.76, 0.9, noise(q[0] * 52, q[1] * 52, 8));
    return mix(mix(hex("a9b83a"), hex("ad1f22"), blush), hex("f0e2b0"), speck);
  }
  if (kind === BOWL) {
    const turn = Math.atan2(p[0] - BOWL_AT[0], p[2] - BOWL_AT[2]);
    const y = p[1];
    const glaze = scale(hex("efe8da"), 0.9 + 0.15 * fractal(turn * 6, y * 8, 4, 33));
    const zigzag = Math.abs((((turn * 12) / Math.PI + 40) % 1) - 0.5) * 0.22;
    const pattern =
      Math.abs(y - 0.4 - zigzag) < 0.025 || Math.abs(y - 0.66) < 0.022 || Math.abs(y - 0.73) < 0.01;
    return pattern ? hex("28536f") : y > 0.8 ? hex("8a5a36") : glaze;
  }
  if (kind === BALL) {
    const marble = fractal(p[0] * 5 + 2 * fractal(p[0] * 5, p[1] * 5, 4, 91), p[1] * 5, 5, 92);
    const line = smoothstep(0.05, 0, Math.abs(marble - 0.5));
    return mix(hex("2e5a4c"), hex("d8cfa8"), 0.75 * line + 0.12 * marble);
  }
  const fold = Math.sin(5.2 * p[0] + 0.5 * p[1] + 1.6 * Math.sin(1.3 * p[0] + 0.4 * p[1]));
  const weave = (0.9 + 0.2 * fractal(p[0] * 40, p[1] * 6, 3, 101)) * (0.82 + 0.26 * fold);
  return scale(mix(hex("5d5a63"), hex("94826f"), fractal(p[0], p[1], 4, 103)), weave);
}

/** Light on the surface point `p` seen along `ray`. */
function shade(p: Vec, ray: Vec): Rgb {
  const all = distances(p);
  const kind = all.indexOf(Math.min(...all));
  let n = normalAt(p);
  if (kind === ORANGE) {
    const q = minus(p, ORANGE_AT);
    const a = Math.atan2(q[0], -q[2]) * 17;
    const bump = (x: number, y: number) => fractal(x, y, 2, 71);
    const h = bump(a, q[1] * 44);
    n = unit([
      n[0] + 0.55 * (bump(a + 0.2, q[1] * 44) - h),
      n[1] + 0.55 * (bump(a, q[1] * 44 + 0.2) - h),
      n[2],
    ]);
  }
  const sun = clamp(dot(n, LAMP));
  const lit = sun > 0 ? sun * lampVisible(along(p, n, 0.006)) : 0;
  const open = openness(p, n);
  const sky = (0.16 + 0.12 * n[1]) * open;
  const bounce = 0.1 * clamp(-n[1] * 0.5 + 0.5) * open;
  const light: Rgb = [
    1.62 * lit + sky * 0.85 + bounce,
    1.5 * lit + sky * 0.95 + bounce * 0.9,
    1.3 * lit + sky * 1.2 + bounce * 0.75,
  ];
  const gloss = [0, 0.16, 0.5, 0.55, 0.9, 0][kind];
  const half = unit(minus(LAMP, ray));
  const shine = gloss * clamp(dot(n, half)) ** (kind === ORANGE ? 26 : 90) * lit;
  const edge = gloss * 0.22 * (1 - clamp(-dot(n, ray))) ** 4 * open;
  const colour = tint(surfaceColour(kind, p), light);
  return [
    colour[0] + shine + edge,
    colour[1] + shine + edge,
    colour[2] + shine * 0.95 + edge * 1.1,
  ];
}

/** The still life at (u, v). */
export function stillLife(u: number, v: number): Rgb {
  const ray = unit([(u - 0.5) * 0.86 + 0.03, (0.5 - v) * 0.86 - 0.19, 1]);
  const t = march(CAMERA, ray);
  const corner = 1 - 0.35 * ((u - 0.5) ** 2 + (v - 0.5) ** 2);
  const colour = scale(shade(along(CAMERA, ray, t), ray), corner);
  // A soft shoulder keeps highlights from burning out.
  const film = (c: number) => (c < 0.6 ? c : 0.6 + 0.4 * (1 - Math.exp(-(c - 0.6) / 0.4)));
  return [film(colour[0]), film(colour[1]), film(colour[2])];
}
