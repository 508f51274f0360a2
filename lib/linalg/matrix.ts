/** Small dense matrices in double precision, row-major: what calibration does with covariances. */
import { Spr2qError } from "../errors.ts";

export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

/** A matrix of zeros, or over a copy of `values`. */
export function matrix(rows: number, cols: number, values?: ArrayLike<number>): Matrix {
  const data = values ? Float64Array.from(values) : new Float64Array(rows * cols);
  if (data.length === rows * cols) return { rows, cols, data };
  throw new Spr2qError(
    "ERR_INTERNAL",
    `matrix of ${rows}x${cols}: expected ${rows * cols} values, got ${data.length}.`,
  );
}

export function identity(n: number): Matrix {
  const result = matrix(n, n);
  for (let i = 0; i < n; i++) result.data[i * n + i] = 1;
  return result;
}

export function transposed(a: Matrix): Matrix {
  const result = matrix(a.cols, a.rows);
  for (let i = 0; i < a.rows; i++)
    for (let j = 0; j < a.cols; j++) result.data[j * a.rows + i] = a.data[i * a.cols + j];
  return result;
}

/** a b; ERR_INTERNAL where the inner sides differ. */
export function product(a: Matrix, b: Matrix): Matrix {
  if (a.cols !== b.rows) {
    const sides = `${a.rows}x${a.cols} and ${b.rows}x${b.cols}`;
    throw new Spr2qError("ERR_INTERNAL", `product: expected equal inner sides, got ${sides}.`);
  }
  const result = matrix(a.rows, b.cols);
  for (let i = 0; i < a.rows; i++) {
    for (let k = 0; k < a.cols; k++) {
      const factor = a.data[i * a.cols + k];
      if (factor === 0) continue;
      for (let j = 0; j < b.cols; j++)
        result.data[i * b.cols + j] += factor * b.data[k * b.cols + j];
    }
  }
  return result;
}

/** a with its column j multiplied by factors[j]. */
export function scaledColumns(a: Matrix, factors: ArrayLike<number>): Matrix {
  const data = a.data.map((value, i) => value * factors[i % a.cols]);
  return { rows: a.rows, cols: a.cols, data };
}
