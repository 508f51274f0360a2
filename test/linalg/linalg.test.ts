/** Decompositions against their defining equations. */
import { expect, test } from "vitest";
import { cholesky, inverse, solve } from "../../lib/linalg/cholesky.ts";
import { symmetricEigen } from "../../lib/linalg/eigen.ts";
import { hadamard } from "../../lib/linalg/hadamard.ts";
import {
  identity,
  type Matrix,
  matrix,
  product,
  scaledColumns,
  transposed,
} from "../../lib/linalg/matrix.ts";
import { svd } from "../../lib/linalg/svd.ts";
import { random } from "../ops/harness.ts";

const draw = (rows: number, cols: number, seed: number): Matrix =>
  matrix(rows, cols, random(rows * cols, seed));

function difference(a: Matrix, b: Matrix): number {
  expect([a.rows, a.cols]).toEqual([b.rows, b.cols]);
  return a.data.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b.data[i])), 0);
}

const gram = (a: Matrix): Matrix => product(transposed(a), a);

test("Hadamard matrices of the orders that the networks have are orthonormal, all entries alike", () => {
  for (const n of [1, 2, 4, 8, 12, 16, 20, 24, 48, 60, 64, 120, 144]) {
    const h = hadamard(n)!;
    expect(difference(gram(h), identity(n)), `${n}`).toBeLessThan(1e-12);
    expect(h.data.every((x) => Math.abs(Math.abs(x) - 1 / Math.sqrt(n)) < 1e-15)).toBe(true);
  }
  for (const n of [3, 6, 50]) expect(hadamard(n)).toBeNull();
});

test("a symmetric matrix is put together again from its eigenvalues", () => {
  for (const n of [1, 2, 3, 19, 48]) {
    const s = gram(draw(n + 3, n, n));
    const { values, vectors } = symmetricEigen(s);
    const again = product(scaledColumns(vectors, values), transposed(vectors));
    expect(difference(again, s)).toBeLessThan(1e-11);
    expect(difference(gram(vectors), identity(n))).toBeLessThan(1e-12);
    expect([...values]).toEqual([...values].sort((a, b) => b - a));
  }
  // Known: eigenvalues of the second difference matrix are 2 - 2 cos(k pi / (n + 1)).
  const n = 12;
  const second = matrix(n, n);
  for (let i = 0; i < n; i++) {
    second.data[i * n + i] = 2;
    if (i > 0) second.data[i * n + i - 1] = second.data[(i - 1) * n + i] = -1;
  }
  symmetricEigen(second).values.forEach((value, i) => {
    expect(value).toBeCloseTo(2 - 2 * Math.cos(((n - i) * Math.PI) / (n + 1)), 12);
  });
});

test("singular values: tall, wide, square and of less than full rank", () => {
  for (const [rows, cols] of [
    [5, 3],
    [3, 5],
    [48, 48],
    [60, 24],
    [16, 64],
  ]) {
    const a = draw(rows, cols, rows * 100 + cols);
    const { u, values, v } = svd(a);
    const again = product(scaledColumns(u, values), transposed(v));
    expect(difference(again, a)).toBeLessThan(1e-12);
    const k = Math.min(rows, cols);
    expect(difference(gram(u), identity(k))).toBeLessThan(1e-12);
    expect(difference(gram(v), identity(k))).toBeLessThan(1e-12);
  }
  const low = product(draw(9, 2, 1), draw(2, 7, 2));
  const { u, values, v } = svd(low);
  expect(values[1]).toBeGreaterThan(1e-3);
  expect(Math.max(...values.slice(2))).toBeLessThan(1e-12);
  expect(difference(product(scaledColumns(u, values), transposed(v)), low)).toBeLessThan(1e-12);
});

test("Cholesky factors, solutions and inverses", () => {
  const s = gram(draw(20, 12, 4));
  const l = cholesky(s);
  expect(difference(product(l, transposed(l)), s)).toBeLessThan(1e-12);
  const b = draw(12, 3, 5);
  expect(difference(product(s, solve(s, b)), b)).toBeLessThan(1e-10);
  expect(difference(product(s, inverse(s)), identity(12))).toBeLessThan(1e-10);
  expect(() => cholesky(matrix(2, 2, [1, 2, 2, 1]))).toThrow(/positive definite/);
});
