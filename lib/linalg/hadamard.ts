/**
 * Hadamard matrices, orthonormal: entries of +-1/sqrt(n). Sylvester's doubling, and Paley's first
 * construction for n - 1 a prime that leaves 3 when divided by 4 (12, 24, 48, 60, ...).
 */
import { type Matrix, matrix } from "./matrix.ts";

function isPrime(n: number): boolean {
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false;
  return n > 1;
}

/** Paley I of order q + 1: 1 on the diagonal and first row, residues of j - i elsewhere. */
function paley(n: number): Float64Array {
  const q = n - 1;
  const squares = new Set(Array.from({ length: q }, (_, i) => (i * i) % q));
  const data = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      if (i === j || i === 0) data[i * n + j] = 1;
      else if (j === 0) data[i * n + j] = -1;
      else data[i * n + j] = squares.has((((j - i) % q) + q) % q) ? 1 : -1;
    }
  }
  return data;
}

/** Entries +-1 of a Hadamard matrix of order n, or null where no construction here gives one. */
function signs(n: number): Float64Array | null {
  if (n === 1) return Float64Array.of(1);
  const half = n % 2 === 0 ? signs(n / 2) : null;
  if (half) {
    const m = n / 2;
    const data = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) {
        const entry = half[(i % m) * m + (j % m)];
        data[i * n + j] = i >= m && j >= m ? -entry : entry;
      }
    return data;
  }
  return n % 4 === 0 && isPrime(n - 1) ? paley(n) : null;
}

/** An orthonormal Hadamard matrix of order n; null where there is none (3) or none known here. */
export function hadamard(n: number): Matrix | null {
  const entries = signs(n);
  return (
    entries &&
    matrix(
      n,
      n,
      entries.map((sign) => sign / Math.sqrt(n)),
    )
  );
}
