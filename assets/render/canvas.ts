/**
 * What the four pictures of this folder share: colours in linear light, hashed noise without any
 * state, distances to simple shapes, and the sampler that turns a scene into pixels. Everything is
 * a pure function of its arguments, so any crop of a picture can be rendered alone.
 */

/** Red, green, blue in linear light; 1 is white. */
export type Rgb = readonly [number, number, number];

/** Colour of a picture at (u, v): u runs right, v runs down, both 0 to 1. */
export type Scene = (u: number, v: number) => Rgb;

/** A rectangle of pixels inside a picture. */
export interface Crop {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Samples per pixel and axis: 8 x 8 keep lines of a tenth of a pixel free of stair steps. */
const SAMPLES = 8;
/** Half width of the triangular pixel filter in pixels: a lens a little softer than a box. */
const FILTER_RADIUS = 0.8;

/** 0 to 1 from two integers and a seed (an integer mixer with two multiplications). */
export function hash(x: number, y: number, seed: number): number {
  let h = Math.imul(x, 0x27d4eb2d) ^ Math.imul(y, 0x165667b1) ^ Math.imul(seed, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 4294967296;
}

/** Limits `x` to `low` and `high`. */
export function clamp(x: number, low = 0, high = 1): number {
  return Math.min(Math.max(x, low), high);
}

/** 0 below `low`, 1 above `high`, an S-shaped ramp between. */
export function smoothstep(low: number, high: number, x: number): number {
  const t = clamp((x - low) / (high - low));
  return t * t * (3 - 2 * t);
}

/** `a` at t = 0, `b` at t = 1. */
export function mix(a: Rgb, b: Rgb, t: number): Rgb {
  return [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t];
}

/** Every channel times `k`. */
export function scale(a: Rgb, k: number): Rgb {
  return [a[0] * k, a[1] * k, a[2] * k];
}

/** Channel by channel product: a surface `a` under a light `b`. */
export function tint(a: Rgb, b: Rgb): Rgb {
  return [a[0] * b[0], a[1] * b[1], a[2] * b[2]];
}

const palette = new Map<string, Rgb>();

/** Linear colour from the usual six hexadecimal digits. */
export function hex(code: string): Rgb {
  let colour = palette.get(code);
  if (colour === undefined) {
    const value = Number.parseInt(code, 16);
    const channel = (shift: number) => {
      const c = ((value >> shift) & 255) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    };
    colour = [channel(16), channel(8), channel(0)];
    palette.set(code, colour);
  }
  return colour;
}

/** Smooth noise from 0 to 1 with features of size 1. */
export function noise(x: number, y: number, seed: number): number {
  const ix = Math.floor(x);
  const iy = Math.floor(y);
  const fx = smoothstep(0, 1, x - ix);
  const fy = smoothstep(0, 1, y - iy);
  const top = hash(ix, iy, seed) * (1 - fx) + hash(ix + 1, iy, seed) * fx;
  const bottom = hash(ix, iy + 1, seed) * (1 - fx) + hash(ix + 1, iy + 1, seed) * fx;
  return top * (1 - fy) + bottom * fy;
}

/** Sum of `octaves` noises, each twice as fine and half as strong: 0 to 1, spectrum near 1/f. */
export function fractal(x: number, y: number, octaves: number, seed: number): number {
  let sum = 0;
  let weight = 0.5;
  let total = 0;
  for (let i = 0; i < octaves; i++) {
    sum += weight * noise(x, y, seed + i * 17);
    total += weight;
    weight *= 0.5;
    // A turn between octaves hides the grid of the noise.
    [x, y] = [1.6 * x + 1.2 * y + 7.3, -1.2 * x + 1.6 * y + 3.1];
  }
  return sum / total;
}

/** Distance from (x, y) to the segment (ax, ay)-(bx, by). */
export function segment(
  x: number,
  y: number,
  ax: number,
  ay: number,
  bx: number,
  by: number,
): number {
  const dx = bx - ax;
  const dy = by - ay;
  const t = clamp(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1));
  return Math.hypot(x - ax - t * dx, y - ay - t * dy);
}

/** Linear light to an 8-bit sRGB code. */
function encode(c: number): number {
  c = clamp(c);
  const s = c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055;
  return Math.round(s * 255);
}

/** Sends 0 to 1 evenly distributed to a triangular density on -1 to 1. */
function triangular(t: number): number {
  return t < 0.5 ? Math.sqrt(2 * t) - 1 : 1 - Math.sqrt(2 - 2 * t);
}

/** Renders `crop` of a `size` x `size` picture: RGB bytes, row by row. */
export function render(scene: Scene, size: number, crop: Crop, seed: number): Uint8Array {
  const out = new Uint8Array(crop.width * crop.height * 3);
  let at = 0;
  for (let y = crop.y; y < crop.y + crop.height; y++) {
    for (let x = crop.x; x < crop.x + crop.width; x++) {
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let s = 0; s < SAMPLES * SAMPLES; s++) {
        const cell = (y * size + x) * SAMPLES * SAMPLES + s;
        const i = ((s % SAMPLES) + hash(cell, 0, seed)) / SAMPLES;
        const j = (Math.floor(s / SAMPLES) + hash(cell, 1, seed)) / SAMPLES;
        const u = (x + 0.5 + FILTER_RADIUS * triangular(i)) / size;
        const v = (y + 0.5 + FILTER_RADIUS * triangular(j)) / size;
        const colour = scene(u, v);
        red += colour[0];
        green += colour[1];
        blue += colour[2];
      }
      const weight = 1 / (SAMPLES * SAMPLES);
      out[at++] = encode(red * weight);
      out[at++] = encode(green * weight);
      out[at++] = encode(blue * weight);
    }
  }
  return out;
}
