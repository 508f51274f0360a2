/**
 * Window attention once more, in plain double arithmetic and by explicit rolling and partitioning,
 * so that neither the native references nor their shared geometry judge themselves. Small shapes
 * only.
 */
import type { F32 } from "../../binding.d.ts";
import { random } from "./harness.ts";

/** Sizes of one call, in the order in which the ops take them. */
export interface Shape {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly heads: number;
  readonly headDim: number;
  readonly window: number;
  readonly shift: number;
}

/** The sizes as the ops' positional arguments. */
export function sizes(s: Shape): [number, number, number, number, number, number, number] {
  return [s.batch, s.height, s.width, s.heads, s.headDim, s.window, s.shift];
}

/** Values in q, k, v or y. */
export function tokensOf(s: Shape): number {
  return s.batch * s.height * s.width * s.heads * s.headDim;
}

/** Values in the bias table. */
export function tableOf(s: Shape): number {
  return (2 * s.window - 1) ** 2 * s.heads;
}

export interface Operands {
  readonly q: F32;
  readonly k: F32;
  readonly v: F32;
  readonly table: F32;
}

/** Random operands; `sharpness` scales the logits. */
export function operands(s: Shape, seed: number, sharpness = 1): Operands {
  const n = tokensOf(s);
  const reach = sharpness * Math.sqrt(3 / Math.sqrt(s.headDim));
  return {
    q: random(n, seed, -reach, reach),
    k: random(n, seed + 1, -reach, reach),
    v: random(n, seed + 2),
    table: random(tableOf(s), seed + 3, -sharpness, sharpness),
  };
}

/** Shapes that the tests share: window widths on and off the vector width, every head width. */
export const shapes: readonly Shape[] = [
  { batch: 1, height: 16, width: 32, heads: 2, headDim: 12, window: 16, shift: 8 },
  { batch: 1, height: 16, width: 16, heads: 4, headDim: 12, window: 16, shift: 0 },
  { batch: 2, height: 16, width: 8, heads: 3, headDim: 10, window: 8, shift: 4 },
  { batch: 1, height: 8, width: 16, heads: 2, headDim: 8, window: 8, shift: 0 },
  { batch: 1, height: 7, width: 14, heads: 1, headDim: 5, window: 7, shift: 3 },
  { batch: 3, height: 3, width: 3, heads: 2, headDim: 16, window: 3, shift: 1 },
  { batch: 1, height: 1, width: 1, heads: 1, headDim: 1, window: 1, shift: 0 },
  { batch: 1, height: 4, width: 2, heads: 1, headDim: 64, window: 2, shift: 1 },
  { batch: 1, height: 10, width: 5, heads: 2, headDim: 30, window: 5, shift: 2 },
];

/** Byte for byte: on long arrays far quicker than toEqual. */
export function sameBytes(a: F32, b: F32): boolean {
  return Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;
}

/** A shape in a few characters, for test names. */
export function name(s: Shape): string {
  return `${s.batch}x${s.height}x${s.width}, ${s.heads} heads of ${s.headDim}, window ${s.window}, shift ${s.shift}`;
}

const MASK = -100;

function band(rolled: number, extent: number, s: Shape): number {
  return rolled < extent - s.window ? 0 : rolled < extent - s.shift ? 1 : 2;
}

/**
 * y = sum_j P_j v_j. `weigh(p, row)` maps one query's softmax to its weights P; `row` counts
 * queries in (sample, window, head, position) order.
 */
export function attention(
  s: Shape,
  o: Operands,
  weigh: (p: readonly number[], row: number) => readonly number[],
): Float64Array {
  const { window: w, shift, heads, headDim } = s;
  const y = new Float64Array(tokensOf(s));
  const stride = heads * headDim;
  let row = 0;
  for (let sample = 0; sample < s.batch; sample++) {
    for (let top = 0; top < s.height; top += w) {
      for (let left = 0; left < s.width; left += w) {
        const places: { y: number; x: number; at: number; label: number }[] = [];
        for (let y0 = 0; y0 < w; y0++) {
          for (let x0 = 0; x0 < w; x0++) {
            const image =
              ((top + y0 + shift) % s.height) * s.width + ((left + x0 + shift) % s.width);
            const label = 3 * band(top + y0, s.height, s) + band(left + x0, s.width, s);
            places.push({
              y: y0,
              x: x0,
              at: (sample * s.height * s.width + image) * stride,
              label,
            });
          }
        }
        for (let head = 0; head < heads; head++) {
          for (const query of places) {
            const logits = places.map((key) => {
              const entry = (query.y - key.y + w - 1) * (2 * w - 1) + query.x - key.x + w - 1;
              let logit = o.table[entry * heads + head];
              if (shift > 0 && query.label !== key.label) logit += MASK;
              for (let d = head * headDim; d < (head + 1) * headDim; d++) {
                logit += o.q[query.at + d] * o.k[key.at + d];
              }
              return logit;
            });
            const largest = Math.max(...logits);
            const e = logits.map((logit) => Math.exp(logit - largest));
            const total = e.reduce((a, b) => a + b, 0);
            const weights = weigh(
              e.map((x) => x / total),
              row++,
            );
            for (let d = head * headDim; d < (head + 1) * headDim; d++) {
              y[query.at + d] = places.reduce((a, key, j) => a + weights[j] * o.v[key.at + d], 0);
            }
          }
        }
      }
    }
  }
  return y;
}
