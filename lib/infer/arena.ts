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

/** First-fit addresses; returns the bytes that they need. */
export function placeBuffers(lives: Iterable<Life>): number {
  let live: Life[] = []; // by address
  let size = 0;
  for (const life of [...lives].sort((a, b) => a.first - b.first || b.bytes - a.bytes)) {
    live = live.filter((other) => other.last >= life.first);
    let offset = 0;
    let at = 0;
    for (; at < live.length && offset + life.bytes > live[at].offset; at++) {
      offset = Math.max(offset, live[at].offset + live[at].bytes);
    }
    life.offset = offset;
    live.splice(at, 0, life);
    size = Math.max(size, offset + life.bytes);
  }
  return size;
}
