/** Addresses for values that share one block of memory, by their first and last use. */

/** Addresses are multiples of this many bytes (one cache line). */
export const ALIGNMENT = 64;

/** A value: its bytes, the first and last step that use it, and its address once placed. */
export interface Life {
  readonly bytes: number;
  readonly first: number;
  last: number;
  offset: number;
}

export const roundUp = (n: number, to: number): number => Math.ceil(n / to) * to;

/**
 * Gives every value the lowest address that no other value of its time has; returns the bytes that
 * all need. Large and long values first: what lives long at the bottom leaves one hole, not many.
 */
export function placeBuffers(lives: Iterable<Life>): number {
  const duration = (life: Life): number => life.last - life.first;
  const order = [...lives].sort((a, b) => b.bytes - a.bytes || duration(b) - duration(a));
  const placed: Life[] = []; // by address
  let size = 0;
  for (const life of order) {
    let offset = 0;
    for (const other of placed) {
      if (other.last < life.first || other.first > life.last) continue;
      if (offset + life.bytes <= other.offset) break;
      offset = Math.max(offset, other.offset + other.bytes);
    }
    life.offset = offset;
    const at = placed.findIndex((other) => other.offset > offset);
    placed.splice(at < 0 ? placed.length : at, 0, life);
    size = Math.max(size, offset + life.bytes);
  }
  return size;
}
