/**
 * AdaRound: whether a weight is rounded up or down is learned. While it is, the weight is
 *   a + s clip(floor((W - a)/s) + h(alpha), 0, L),  h = clip(1.2 sigmoid(alpha) - 0.1, 0, 1),
 * on the grid of its bounds, which stay; a regulariser drives every h to 0 or 1.
 */
import { type Graph, Var } from "../autograd.ts";
import type { Bounds } from "../quant/codes.ts";
import { floats } from "../tensor.ts";

/** The stretched sigmoid reaches 0 and 1. */
const STRETCH = { gain: 1.2, shift: -0.1 } as const;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export class SoftRounding {
  readonly alpha: Var;
  /** Weight of sum(1 - |2h - 1|^power) in the loss; 0 leaves it out. */
  weight = 0;
  power = 20;
  readonly #floors: Float32Array;
  readonly #lower: Float32Array;
  readonly #steps: Float32Array;
  readonly #levels: number;
  readonly #columns: number;

  /** For a weight (rows, columns) and its bounds by row or tensor; starts at the weight itself. */
  constructor(weight: Var, bounds: Bounds) {
    const rows = weight.shape[0];
    this.#columns = weight.size / rows;
    this.#levels = 2 ** bounds.bits - 1;
    const of = (v: Var, r: number): number => v.data[v.size === 1 ? 0 : r];
    this.#lower = Float32Array.from({ length: rows }, (_, r) => of(bounds.lower, r));
    this.#steps = Float32Array.from(
      { length: rows },
      (_, r) => (of(bounds.upper, r) - of(bounds.lower, r)) / this.#levels,
    );
    this.#floors = new Float32Array(weight.size);
    const alpha = floats(weight.size);
    weight.data.forEach((value, i) => {
      const r = Math.floor(i / this.#columns);
      const place = (value - this.#lower[r]) / this.#steps[r];
      const floor = Math.floor(place);
      this.#floors[i] = floor;
      const h = Math.min(Math.max(place - floor, 1e-3), 1 - 1e-3);
      const s = (h - STRETCH.shift) / STRETCH.gain;
      alpha[i] = Math.log(s / (1 - s));
    });
    this.alpha = new Var(alpha, weight.shape, true);
  }

  /** h of one element. */
  #h(i: number): number {
    const h = STRETCH.gain * sigmoid(this.alpha.data[i]) + STRETCH.shift;
    return Math.min(Math.max(h, 0), 1);
  }

  /** The soft weight; its gradient reaches alpha, with that of the regulariser. */
  soft(g: Graph): Var {
    const { alpha } = this;
    const y = new Var(g.floats(alpha.size), alpha.shape);
    for (let i = 0; i < alpha.size; i++) {
      const r = Math.floor(i / this.#columns);
      const code = Math.min(Math.max(this.#floors[i] + this.#h(i), 0), this.#levels);
      y.data[i] = this.#lower[r] + this.#steps[r] * code;
    }
    return g.record(y, [alpha], (gy) => {
      const gradient = g.floats(alpha.size);
      for (let i = 0; i < alpha.size; i++) {
        const h = this.#h(i);
        const code = this.#floors[i] + h;
        const s = sigmoid(alpha.data[i]);
        const slope = h > 0 && h < 1 ? STRETCH.gain * s * (1 - s) : 0;
        const inside = code >= 0 && code <= this.#levels ? 1 : 0;
        const step = this.#steps[Math.floor(i / this.#columns)];
        gradient[i] = slope * (gy[i] * step * inside + this.#pull(h));
      }
      return [gradient];
    });
  }

  /** Derivative of the regulariser with respect to h. */
  #pull(h: number): number {
    if (this.weight === 0) return 0;
    const away = Math.abs(2 * h - 1);
    return -this.weight * this.power * 2 * Math.sign(2 * h - 1) * away ** (this.power - 1);
  }

  /** Value of the regulariser. */
  penalty(): number {
    if (this.weight === 0) return 0;
    let total = 0;
    for (let i = 0; i < this.alpha.size; i++)
      total += 1 - Math.abs(2 * this.#h(i) - 1) ** this.power;
    return this.weight * total;
  }

  /** Writes the decided weights into `weight`: values of its grid, which code to themselves. */
  harden(weight: Var): void {
    for (let i = 0; i < weight.size; i++) {
      const r = Math.floor(i / this.#columns);
      const up = this.#h(i) >= 0.5 ? 1 : 0;
      const code = Math.min(Math.max(this.#floors[i] + up, 0), this.#levels);
      weight.data[i] = this.#lower[r] + this.#steps[r] * code;
    }
  }
}
