/**
 * A small harbour in the evening: sky, wooded hills, a row of houses, a quay, three boats with
 * their rigging, and the water that mirrors all of it. Drawn flat, from the front to the back.
 */
import {
  clamp,
  fractal,
  hash,
  hex,
  mix,
  noise,
  type Rgb,
  scale,
  segment,
  smoothstep,
} from "./canvas.ts";

/** Where the quay meets the water. */
const WATERLINE = 0.6;
const FACADES = ["d8a25c", "c9705a", "e6d6b4", "9db6bd", "d9b9a0", "b85c4a", "e8c987", "a9b48a"];

interface Boat {
  /** Middle of the boat and its waterline in the picture, and its length. */
  readonly x: number;
  readonly y: number;
  readonly length: number;
  /** 1: the bow points right, -1: left. */
  readonly heading: number;
  readonly hull: Rgb;
  readonly stripe: Rgb;
  readonly sail: boolean;
  readonly seed: number;
}

const BOATS: readonly Boat[] = [
  {
    x: 0.27,
    y: 0.79,
    length: 0.46,
    heading: 1,
    hull: hex("23486b"),
    stripe: hex("e9e2d0"),
    sail: false,
    seed: 3,
  },
  {
    x: 0.75,
    y: 0.705,
    length: 0.35,
    heading: -1,
    hull: hex("f0ece2"),
    stripe: hex("b23a2e"),
    sail: true,
    seed: 5,
  },
  {
    x: 0.49,
    y: 0.655,
    length: 0.2,
    heading: 1,
    hull: hex("3f7a55"),
    stripe: hex("f2d478"),
    sail: false,
    seed: 9,
  },
];

function sky(u: number, v: number): Rgb {
  const base = mix(hex("4d7fb8"), hex("f6d3a4"), smoothstep(-0.05, 0.52, v));
  const cloud = fractal(u * 3.2 + 1.7, v * 7.5 + 0.4 * fractal(u * 5, v * 5, 3, 40), 6, 31);
  const lit = mix(
    hex("b79aa0"),
    hex("fff0dc"),
    smoothstep(0.35, 0.75, fractal(u * 5, v * 9, 4, 77)),
  );
  return mix(base, lit, 0.85 * smoothstep(0.47, 0.68, cloud));
}

/** The hills' ridge: v of the edge at u. */
function ridge(u: number): number {
  return (
    0.4 +
    0.1 * Math.sin(u * 3.1 + 0.6) * Math.sin(u * 3.1 + 0.6) -
    0.05 * fractal(u * 5, 0.3, 4, 12)
  );
}

function hills(u: number, v: number): Rgb {
  const depth = v - ridge(u);
  const crown = fractal(u * 46, v * 60, 4, 21);
  const green = mix(hex("2f4a34"), hex("8f9a55"), smoothstep(0.3, 0.72, crown));
  return mix(hex("7f93a6"), green, 0.35 + 0.6 * smoothstep(0, 0.1, depth));
}

/** Wall with windows of one house; (x, y) in house widths and heights from its upper left. */
function facade(x: number, y: number, floors: number, seed: number): Rgb {
  const wall = hex(FACADES[Math.floor(hash(seed, 1, 8) * FACADES.length)]);
  const grain = 0.86 + 0.28 * fractal(x * 9 + seed, y * 13, 4, seed);
  let colour = scale(wall, grain * (0.92 - 0.18 * y));
  const columns = hash(seed, 2, 8) < 0.5 ? 2 : 3;
  const cx = (x * columns) % 1;
  const cy = (y * floors) % 1;
  if (cx > 0.3 && cx < 0.7 && cy > 0.2 && cy < 0.78) {
    const frame =
      cx < 0.34 || cx > 0.66 || Math.abs(cx - 0.5) < 0.025 || Math.abs(cy - 0.42) < 0.03;
    const lamp = hash(seed * 31 + Math.floor(x * columns), Math.floor(y * floors), 5) > 0.72;
    const glass = lamp ? hex("ffd27a") : mix(hex("1d2a36"), hex("6f8ca3"), clamp(1.1 - cy));
    colour = frame ? hex("f1eadb") : glass;
  } else if (cx > 0.16 && cx < 0.84 && cy > 0.18 && cy < 0.8 && hash(seed, 3, 8) > 0.4) {
    const slat = 0.6 + 0.4 * Math.abs(Math.sin(cy * 30));
    colour = scale(hash(seed, 4, 8) > 0.5 ? hex("3c6454") : hex("54606f"), slat);
  }
  return colour;
}

/** The row of houses; undefined where the view passes over them. */
function houses(u: number, v: number): Rgb | undefined {
  const width = 0.094;
  const index = Math.floor(u / width + 0.35);
  const x = u / width + 0.35 - index;
  const floors = 2 + Math.floor(hash(index, 5, 2) * 3);
  const eaves = WATERLINE - 0.035 - 0.052 * floors;
  const roof = 0.045 + 0.02 * hash(index, 6, 2);
  if (v >= eaves) return facade(x, (v - eaves) / (0.052 * floors), floors, index + 3);
  const height = (eaves - v) / roof;
  if (height < 1 - Math.abs(2 * x - 1) * 0.95) {
    const row = Math.floor(height * 7);
    const tile = hash(Math.floor(x * 13 + (row % 2) * 0.5), row, index);
    const shade = (height * 7) % 1 < 0.2 ? 0.55 : 0.8 + 0.4 * tile;
    return scale(mix(hex("8d4632"), hex("a9603f"), hash(index, 7, 2)), shade);
  }
  const chimney = 0.2 + 0.5 * hash(index, 8, 2);
  if (Math.abs(x - chimney) < 0.06 && height < 1.15) return hex("7a4a3c");
  return undefined;
}

/** Everything that stands behind the boats, above the water. */
function shore(u: number, v: number): Rgb {
  if (v > WATERLINE - 0.035) {
    const row = Math.floor((v - WATERLINE) / 0.0125);
    const bx = u / 0.045 + (row % 2) * 0.5;
    const joint = bx - Math.floor(bx) < 0.06 || ((((v - WATERLINE) / 0.0125) % 1) + 1) % 1 < 0.14;
    const stone = 0.62 + 0.5 * hash(Math.floor(bx), row, 4) * fractal(u * 90, v * 90, 3, 6);
    return scale(hex("a79a86"), joint ? 0.32 : stone);
  }
  return houses(u, v) ?? (v > ridge(u) ? hills(u, v) : sky(u, v));
}

/** Mast, boom, stays, ratlines and pennants; (x, y) in boat lengths, y up from the water. */
function rigging(x: number, y: number, boat: Boat): Rgb | undefined {
  const mast = 0.06;
  const top = 1.12;
  if (Math.abs(x - mast) < 0.011 * (1.3 - 0.5 * y) && y < top) {
    return scale(hex("c79a5e"), 0.55 + 30 * Math.max(0, mast + 0.011 - x));
  }
  for (const cross of [0.52, 0.82]) {
    if (Math.abs(y - cross) < 0.006 && Math.abs(x - mast) < 0.075) return hex("7d5a34");
  }
  const stays = [
    segment(x, y, mast, top - 0.02, 0.53, 0.18),
    segment(x, y, mast, top - 0.02, -0.47, 0.16),
    segment(x, y, mast, 0.84, 0.36, 0.16),
    segment(x, y, mast - 0.075, 0.82, mast - 0.1, 0.12),
    segment(x, y, mast + 0.075, 0.82, mast + 0.1, 0.12),
    segment(x, y, mast, 0.5, mast - 0.1, 0.12),
    segment(x, y, mast, 0.5, mast + 0.1, 0.12),
  ];
  if (Math.min(...stays) < 0.0042) return hex("2b2622");
  if (!boat.sail && y < 0.5 && Math.abs(x - mast) < (0.5 - y) * 0.26 && (y * 26) % 1 < 0.1) {
    return hex("3a332d");
  }
  const along = (x - mast) / (0.53 - mast);
  const line = top - 0.02 + (0.18 - top + 0.02) * along;
  const flag = Math.floor(along * 9);
  const inside = along * 9 - flag;
  if (
    along > 0.05 &&
    along < 0.97 &&
    y < line &&
    line - y < 0.085 * (1 - 2 * Math.abs(inside - 0.5))
  ) {
    return hex(["c8402f", "f0c14b", "2f6f8f", "f5f1e6"][(flag + boat.seed) % 4]);
  }
  return undefined;
}

/** Sail with seams, or the sail furled on its boom. */
function canvasOf(x: number, y: number, boat: Boat): Rgb | undefined {
  if (!boat.sail) {
    const sag = 0.3 + 0.012 * Math.sin(x * 40);
    if (x > -0.4 && x < 0.07 && Math.abs(y - sag) < 0.03) {
      const fold = 0.85 + 0.15 * Math.sin(x * 46 + y * 60);
      return scale(hex("d9cfbb"), fold * (0.7 + 8 * (y - sag)));
    }
    return undefined;
  }
  const rise = (y - 0.24) / 0.82;
  if (rise < 0 || rise > 1) return undefined;
  const leech = -0.42 * (1 - rise) ** 0.8 - 0.02;
  if (x > 0.045 || x < leech) return undefined;
  const seam = ((y - x * 0.25) * 11) % 1 < 0.06 ? 0.8 : 1;
  const belly = 0.72 + 0.3 * smoothstep(leech, 0.05, x) - 0.12 * noise(x * 9, y * 7, 51);
  const letter = Math.abs(Math.hypot(x + 0.12, y - 0.62) - 0.05) < 0.012;
  return scale(letter ? hex("2f6f8f") : hex("fbf1dd"), seam * belly);
}

/** Hull and cabin. */
function hullOf(x: number, y: number, boat: Boat): Rgb | undefined {
  const deck = 0.115 + 0.06 * x + 0.16 * x * x;
  const rise = y / deck;
  if (
    rise >= -0.02 &&
    rise <= 1 &&
    x > -0.5 + 0.05 * (1 - rise) &&
    x < 0.55 - 0.17 * (1 - rise) ** 1.4
  ) {
    if (rise > 0.93) return hex("8a6238");
    if (rise > 0.7 && rise < 0.8) return boat.stripe;
    if (rise < 0.16) return hex("7c2f26");
    const plank = (rise * 8) % 1 < 0.09 ? 0.72 : 1;
    const worn = 0.72 + 0.4 * fractal(x * 22, y * 60, 4, boat.seed);
    return scale(boat.hull, plank * worn * (0.55 + 0.65 * rise));
  }
  const inCabin = x > -0.3 && x < 0.0 && y > 0.05 && y < 0.235;
  if (inCabin) {
    if (y > 0.22) return hex("5f4027");
    const port = Math.hypot(((x + 0.3) % 0.1) - 0.05, y - 0.175);
    if (port < 0.027) return port < 0.018 ? hex("22303b") : hex("caa765");
    return scale(hex("efe6d3"), 0.7 + 0.9 * (y - 0.1));
  }
  return undefined;
}

function boatAt(u: number, v: number, boat: Boat, mirror: boolean): Rgb | undefined {
  const x = ((u - boat.x) / boat.length) * boat.heading;
  const y = ((boat.y - v) / boat.length) * (mirror ? -1 : 1);
  if (Math.abs(x) > 0.62 || y < -0.02 || y > 1.2) return undefined;
  return hullOf(x, y, boat) ?? rigging(x, y, boat) ?? canvasOf(x, y, boat);
}

function water(u: number, v: number): Rgb {
  const depth = 1 / (v - WATERLINE + 0.035);
  const wx = (u - 0.5) * depth * 2.1;
  const wy = depth * 5.5;
  const wave = fractal(wx, wy, 4, 61) - 0.5;
  const near = v - WATERLINE;
  const mu = u + wave * (0.012 + 0.07 * near);
  const mv = v + (fractal(wx + 9, wy, 4, 67) - 0.5) * (0.02 + 0.3 * near);
  let seen: Rgb | undefined;
  for (const boat of BOATS) seen ??= v > boat.y ? boatAt(mu, mv, boat, true) : undefined;
  seen ??= shore(mu, Math.min(WATERLINE, 2 * WATERLINE - mv));
  const deep = mix(hex("24505a"), hex("0f2f3d"), smoothstep(0, 0.4, near));
  const glint = smoothstep(0.16, 0.3, wave) * 0.35;
  return mix(mix(deep, seen, 0.66 - 0.5 * near), hex("fdebd0"), glint);
}

/** The harbour at (u, v). */
export function harbour(u: number, v: number): Rgb {
  for (const boat of BOATS) {
    const seen = boatAt(u, v, boat, false);
    if (seen !== undefined) return seen;
  }
  return v < WATERLINE ? shore(u, v) : water(u, v);
}
