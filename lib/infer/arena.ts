/** Addresses for values that share one block of memory, by their first and last use. */

/** Addresses are multiples of this many bytes (one cache line). */
export const ALIGNMENT = 64;

/** A value: its bytes, the first and last step that use it, and its address once placed. */
export interface Life {
  readonly bytes: number;
  readonly first: number;
  last: number;
  offset: number;
  /** True where the address is one in the plan's output, which is free until the last steps. */
  inOutput?: boolean;
}

export const roundUp = (n: number, to: number): number => Math.ceil(n / to) * to;

const duration = (life: Life): number => life.last - life.first;

/** Orders in which values may be placed; which one leaves the fewest holes depends on the network. */
const ORDERS: readonly ((a: Life, b: Life) => number)[] = [
  (a, b) => b.bytes - a.bytes || duration(b) - duration(a),
  (a, b) => duration(b) - duration(a) || b.bytes - a.bytes,
  (a, b) => b.bytes - a.bytes || a.first - b.first,
  (a, b) => a.first - b.first || b.bytes - a.bytes,
];

/**
 * Gives every value an address that no other value of its time has; returns the bytes that all need:
 * the least that any of the orders needs.
 */
export function placeBuffers(lives: Iterable<Life>): number {
  const all = [...lives];
  const sizes = ORDERS.map((order) => placeInOrder(all, order));
  return placeInOrder(all, ORDERS[sizes.indexOf(Math.min(...sizes))]);
}

/** Gives addresses in a block of `capacity` bytes to the values that find room; returns the others. */
export function placeWithin(lives: readonly Life[], capacity: number): Life[] {
  const outside: Life[] = [];
  placeInOrder(lives, ORDERS[0], capacity, outside);
  return outside;
}

/** Lowest addresses, one value after the other; those beyond `capacity` are left to `outside`. */
function placeInOrder(
  lives: readonly Life[],
  order: (a: Life, b: Life) => number,
  capacity = Number.POSITIVE_INFINITY,
  outside: Life[] = [],
): number {
  const placed: Life[] = []; // by address
  let size = 0;
  for (const life of [...lives].sort(order)) {
    let offset = 0;
    for (const other of placed) {
      if (other.last < life.first || other.first > life.last) continue;
      if (offset + life.bytes <= other.offset) break;
      offset = Math.max(offset, other.offset + other.bytes);
    }
    if (offset + life.bytes > capacity) {
      outside.push(life);
      continue;
    }
    life.offset = offset;
    const at = placed.findIndex((other) => other.offset > offset);
    placed.splice(at < 0 ? placed.length : at, 0, life);
    size = Math.max(size, offset + life.bytes);
  }
  return size;
}
