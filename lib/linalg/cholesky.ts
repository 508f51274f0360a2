/** Cholesky factors and what is solved with them. */
import { Spr2qError } from "../errors.ts";
import { identity, type Matrix, matrix } from "./matrix.ts";

/** Lower L with L L^T = S of a symmetric positive definite S; ERR_INTERNAL where it is not. */
export function cholesky(s: Matrix): Matrix {
  const n = s.rows;
  const l = matrix(n, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = s.data[i * n + j];
      for (let k = 0; k < j; k++) sum -= l.data[i * n + k] * l.data[j * n + k];
      if (i !== j) l.data[i * n + j] = sum / l.data[j * n + j];
      else if (sum > 0) l.data[i * n + i] = Math.sqrt(sum);
      else throw new Spr2qError("ERR_INTERNAL", `a ${n}x${n} matrix is not positive definite.`);
    }
  }
  return l;
}

/** X with S X = B for a symmetric positive definite S. */
export function solve(s: Matrix, b: Matrix): Matrix {
  const l = cholesky(s).data;
  const n = s.rows;
  const x = matrix(b.rows, b.cols, b.data);
  for (let c = 0; c < b.cols; c++) {
    for (let i = 0; i < n; i++) {
      let sum = x.data[i * b.cols + c];
      for (let k = 0; k < i; k++) sum -= l[i * n + k] * x.data[k * b.cols + c];
      x.data[i * b.cols + c] = sum / l[i * n + i];
    }
    for (let i = n - 1; i >= 0; i--) {
      let sum = x.data[i * b.cols + c];
      for (let k = i + 1; k < n; k++) sum -= l[k * n + i] * x.data[k * b.cols + c];
      x.data[i * b.cols + c] = sum / l[i * n + i];
    }
  }
  return x;
}

/** Inverse of a symmetric positive definite matrix. */
export const inverse = (s: Matrix): Matrix => solve(s, identity(s.rows));
