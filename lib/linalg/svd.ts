/** Singular values by one-sided Jacobi rotations (Hestenes): small ones come out as exact as large. */
import { Spr2qError } from "../errors.ts";
import { type Matrix, matrix, transposed } from "./matrix.ts";

const MOST_SWEEPS = 60;

/** A = u diag(values) v^T with k = min(rows, cols) values: u (rows, k), v (cols, k). */
export interface Svd {
  readonly u: Matrix;
  /** Falling, none negative. */
  readonly values: Float64Array;
  readonly v: Matrix;
}

/** Columns of u that belong to a value of 0 are 0: they count for nothing in the product. */
export function svd(a: Matrix): Svd {
  if (a.rows >= a.cols) return tall(a);
  const { u, values, v } = tall(transposed(a));
  return { u: v, values, v: u };
}

/** Turns pairs of columns until all are orthogonal; their lengths are the singular values. */
function tall(a: Matrix): Svd {
  const [m, n] = [a.rows, a.cols];
  // Columns as rows of their own, so that a rotation walks along memory.
  const w = transposed(a).data;
  const v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  for (let sweep = 0, turned = true; turned; sweep++) {
    if (sweep === MOST_SWEEPS)
      throw new Spr2qError("ERR_INTERNAL", `singular values of ${m}x${n} do not converge.`);
    turned = false;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        let [pp, qq, pq] = [0, 0, 0];
        for (let k = 0; k < m; k++) {
          const [x, y] = [w[p * m + k], w[q * m + k]];
          pp += x * x;
          qq += y * y;
          pq += x * y;
        }
        if (!Number.isFinite(pq))
          throw new Spr2qError("ERR_INTERNAL", "singular values of a matrix that is not finite.");
        if (Math.abs(pq) <= 1e-15 * Math.sqrt(pp * qq)) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * pq);
        const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.hypot(zeta, 1));
        const c = 1 / Math.hypot(t, 1);
        rotate(w, m, p, q, c, t * c);
        rotate(v, n, p, q, c, t * c);
      }
    }
  }
  return assemble(w, v, m, n);
}

/** Rows p and q, `length` long, turned by the angle of cosine c and sine s. */
function rotate(a: Float64Array, length: number, p: number, q: number, c: number, s: number): void {
  for (let k = 0; k < length; k++) {
    const [x, y] = [a[p * length + k], a[q * length + k]];
    a[p * length + k] = c * x - s * y;
    a[q * length + k] = s * x + c * y;
  }
}

function assemble(w: Float64Array, v: Float64Array, m: number, n: number): Svd {
  const lengths = Array.from({ length: n }, (_, i) => Math.hypot(...w.subarray(i * m, i * m + m)));
  const order = lengths.map((_, i) => i).sort((i, j) => lengths[j] - lengths[i]);
  const [left, right] = [matrix(m, n), matrix(n, n)];
  order.forEach((from, to) => {
    const scale = lengths[from] > 0 ? 1 / lengths[from] : 0;
    for (let k = 0; k < m; k++) left.data[k * n + to] = w[from * m + k] * scale;
    for (let k = 0; k < n; k++) right.data[k * n + to] = v[from * n + k];
  });
  return { u: left, values: Float64Array.from(order, (i) => lengths[i]), v: right };
}
