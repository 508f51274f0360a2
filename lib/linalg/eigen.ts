/** Eigenvalues of symmetric matrices by cyclic Jacobi rotations: slow, simple, exact to rounding. */
import { Spr2qError } from "../errors.ts";
import { identity, type Matrix, matrix } from "./matrix.ts";

/** A sweep turns every pair once; a 200x200 matrix needs about ten. */
const MOST_SWEEPS = 60;

export interface Eigen {
  /** Falling. */
  readonly values: Float64Array;
  /** Column i belongs to value i; orthonormal. */
  readonly vectors: Matrix;
}

/** S = vectors diag(values) vectors^T of a symmetric S (its upper triangle counts). */
export function symmetricEigen(s: Matrix): Eigen {
  const n = s.rows;
  const a = Float64Array.from(s.data);
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) a[i * n + j] = a[j * n + i];
  const v = identity(n).data;
  const total = a.reduce((sum, x) => sum + x * x, 0);
  for (let sweep = 0; ; sweep++) {
    let off = 0;
    for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) off += 2 * a[i * n + j] ** 2;
    if (off <= 1e-30 * total) break;
    if (sweep === MOST_SWEEPS || !Number.isFinite(off))
      throw new Spr2qError("ERR_INTERNAL", `eigenvalues of a ${n}x${n} matrix do not converge.`);
    for (let p = 0; p < n; p++)
      for (let q = p + 1; q < n; q++) if (a[p * n + q] !== 0) turn(a, v, n, p, q);
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => a[j * n + j] - a[i * n + i]);
  const vectors = matrix(n, n);
  order.forEach((from, to) => {
    for (let i = 0; i < n; i++) vectors.data[i * n + to] = v[i * n + from];
  });
  return { values: Float64Array.from(order, (i) => a[i * n + i]), vectors };
}

/** Turns rows and columns p and q so that a[p, q] vanishes; v collects the rotations. */
function turn(a: Float64Array, v: Float64Array, n: number, p: number, q: number): void {
  const theta = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  for (let k = 0; k < n; k++) {
    const [x, y] = [a[k * n + p], a[k * n + q]];
    a[k * n + p] = c * x - s * y;
    a[k * n + q] = s * x + c * y;
  }
  for (let k = 0; k < n; k++) {
    const [x, y] = [a[p * n + k], a[q * n + k]];
    a[p * n + k] = c * x - s * y;
    a[q * n + k] = s * x + c * y;
    const [f, g] = [v[k * n + p], v[k * n + q]];
    v[k * n + p] = c * f - s * g;
    v[k * n + q] = s * f + c * g;
  }
}
