/**
 * An old brick wall seen at an angle, ivy growing over it, and cobbles before it. Rays meet two
 * planes; brick and stone get their light from the slope of a height field, ivy is
 * layers of leaves.
 */
import { clamp, fractal, hash, hex, mix, noise, type Rgb, scale, smoothstep } from "./canvas.ts";

const BRICK = { width: 0.44, height: 0.15, mortar: 0.02 } as const;
/** How far the view is turned away from the wall, in radians. */
const YAW = 0.62;
const GROUND = -0.98;

interface Surface {
  readonly colour: Rgb;
  readonly height: number;
}

function brickAt(x: number, y: number): Surface {
  const row = Math.floor(y / BRICK.height);
  const shift = (row & 1) * 0.5 + 0.06 * hash(row, 3, 1);
  const column = Math.floor(x / BRICK.width + shift);
  const bx = (x / BRICK.width + shift - column) * BRICK.width;
  const by = y - row * BRICK.height;
  const wobble = 0.011 * (fractal(x * 17, y * 17, 3, 4) - 0.5);
  const edge = Math.min(bx, BRICK.width - bx, by, BRICK.height - by) + wobble - BRICK.mortar * 0.5;
  const rise = smoothstep(-0.004, 0.014, edge);
  const pick = hash(column, row, 9);
  const rough = fractal(x * 30, y * 30, 5, 22);
  const fired = mix(mix(hex("7c3324"), hex("b86a48"), pick), hex("4b2a2b"), pick > 0.86 ? 0.7 : 0);
  const pale = smoothstep(0.6, 0.75, fractal(x * 2.4, y * 3, 4, 60)) * 0.45;
  const brick = scale(mix(fired, hex("cdbba4"), pale), 0.66 + 0.6 * rough);
  const mortar = scale(hex("b4a68f"), 0.5 + 0.5 * rough);
  return { colour: mix(mortar, brick, rise), height: rise * 0.026 + rough * 0.017 };
}

function cobbleAt(x: number, z: number): Surface {
  const row = Math.floor(z / 0.19);
  const cx = x / 0.22 + (row & 1) * 0.5;
  const column = Math.floor(cx);
  const lx = (cx - column - 0.5) * 2;
  const lz = (z / 0.19 - row - 0.5) * 2;
  const dome = 1 - clamp((Math.abs(lx) ** 3.2 + Math.abs(lz) ** 3.2) ** (1 / 3.2));
  const rough = fractal(x * 24, z * 24, 4, 82);
  const stone = mix(hex("5d6068"), hex("a39b8c"), hash(column, row, 83));
  const moss = mix(hex("39402b"), hex("6d7340"), rough);
  const top = smoothstep(0.03, 0.22, dome);
  return {
    colour: mix(moss, scale(stone, 0.6 + 0.7 * rough), top),
    height: 0.09 * Math.sqrt(dome) + 0.012 * rough,
  };
}

/** Sun from the upper left on a height field; differences over `step`. */
function relief(at: (x: number, y: number) => Surface, x: number, y: number): Rgb {
  const step = 0.005;
  const here = at(x, y);
  const dx = (at(x + step, y).height - here.height) / step;
  const dy = (at(x, y + step).height - here.height) / step;
  const norm = 1 / Math.sqrt(1 + dx * dx + dy * dy);
  const sun = clamp((0.5 * dx - 0.55 * dy + 0.67) * norm);
  return scale(here.colour, 0.22 + 1.25 * sun);
}

interface Leaf {
  readonly colour: Rgb;
  readonly order: number;
}

/** One leaf in its own coordinates (stalk at the origin, tip along +x, length 1). */
function leafColour(x: number, y: number, tone: number, seed: number): Rgb | undefined {
  const angle = Math.atan2(y, x - 0.32);
  const radius = Math.hypot(x - 0.32, y);
  const lobes =
    0.42 + 0.15 * Math.cos(3 * angle) + 0.09 * Math.cos(5 * angle) + 0.1 * Math.cos(angle);
  if (radius > lobes) return undefined;
  const fan = Math.atan2(y, x + 0.06);
  const vein = Math.min(Math.abs(fan), Math.abs(Math.abs(fan) - 0.62)) * Math.hypot(x + 0.06, y);
  const base = mix(hex("1f3a1b"), hex("8a9d43"), tone);
  const red = hash(seed, 4, 3) > 0.88 ? mix(base, hex("a8552c"), 0.65) : base;
  const gloss = 0.72 + 0.5 * smoothstep(-0.4, 0.4, y + 0.4 * x - 0.1);
  const cell = 0.88 + 0.24 * noise(x * 13, y * 13, seed);
  const lit = scale(red, gloss * cell * (0.75 + 0.25 * smoothstep(lobes, lobes - 0.12, radius)));
  return mix(lit, hex("c5cf8e"), 0.5 * smoothstep(0.026, 0.006, vein));
}

/** Whether ivy grows here: more at the upper right, in tongues. */
function growth(x: number, y: number): number {
  const slope = 0.36 * x + 0.85 * y - 0.55;
  return slope + 1.5 * (fractal(x * 1.6, y * 1.6, 4, 50) - 0.5);
}

/** The topmost leaf over wall point (x, y), if any. */
function ivyAt(x: number, y: number): Leaf | undefined {
  let best: Leaf | undefined;
  for (let layer = 0; layer < 3; layer++) {
    const size = 0.15 + 0.025 * layer;
    const gx = Math.floor(x / size);
    const gy = Math.floor(y / size);
    for (let j = -1; j <= 1; j++) {
      for (let i = -1; i <= 1; i++) {
        const seed = Math.floor(hash(gx + i, gy + j, 100 + layer) * 1e6);
        const px = (gx + i + 0.2 + 0.6 * hash(seed, 1, 1)) * size;
        const py = (gy + j + 0.2 + 0.6 * hash(seed, 2, 1)) * size;
        if (growth(px, py) < 0.12 - 0.05 * layer + 0.3 * hash(seed, 6, 1)) continue;
        const order = layer + hash(seed, 3, 1);
        if (best !== undefined && best.order > order) continue;
        const turn = -1.57 + 1.9 * (hash(seed, 5, 1) - 0.5);
        const length = size * (1.15 + 0.5 * hash(seed, 7, 1));
        const dx = (x - px) / length;
        const dy = (y - py) / length;
        const lx = dx * Math.cos(turn) + dy * Math.sin(turn);
        const ly = -dx * Math.sin(turn) + dy * Math.cos(turn);
        const tone = clamp(0.26 * layer + 0.48 * hash(seed, 8, 1));
        const colour = leafColour(lx, ly, tone, seed);
        if (colour !== undefined) best = { colour, order };
      }
    }
  }
  return best;
}

function wallColour(x: number, y: number): Rgb {
  const leaf = ivyAt(x, y);
  // The sun stands at the upper left, so a leaf's shadow falls to the lower right.
  const above = ivyAt(x - 0.035, y + 0.04);
  if (leaf !== undefined) {
    const shaded = above !== undefined && above.order > leaf.order + 0.2;
    return scale(leaf.colour, shaded ? 0.4 : 1.12);
  }
  const stain = 0.75 + 0.25 * smoothstep(GROUND, GROUND + 0.7, y + 0.3 * fractal(x * 3, 1, 3, 7));
  return scale(relief(brickAt, x, y), (above !== undefined ? 0.36 : 1) * stain);
}

/** The wall at (u, v). */
export function wall(u: number, v: number): Rgb {
  const dx = (u - 0.5) * 1.15;
  const dy = (0.46 - v) * 1.15;
  const rx = dx * Math.cos(YAW) + Math.sin(YAW);
  const rz = -dx * Math.sin(YAW) + Math.cos(YAW);
  const toWall = 1.75 / rz;
  const wy = dy * toWall;
  const haze = smoothstep(2, 9, toWall) * 0.3;
  if (wy > GROUND) return mix(wallColour(rx * toWall, wy), hex("cfd4d2"), haze);
  const toGround = GROUND / dy;
  const gx = rx * toGround;
  const gz = rz * toGround;
  const contact = 0.4 + 0.6 * smoothstep(0, 0.22, 1.75 - gz);
  return mix(scale(relief(cobbleAt, gx, gz), 0.85 * contact), hex("cfd4d2"), haze);
}
