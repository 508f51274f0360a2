/** Runs at a chosen thread count, and bit-for-bit comparison that stays quick on large arrays. */
import { native } from "../../lib/binding.ts";
import { on } from "./harness.ts";

/** Result of `body` on `backend` with `count` threads; the count before is restored. */
export function onThreads<T>(backend: string, count: number, body: () => T): T {
  const before = native().threads();
  native().threads(count);
  try {
    return on(backend, body);
  } finally {
    native().threads(before);
  }
}

/** Names of the arrays of `a` whose bytes differ from those of the same name in `b`. */
export function differingNames<T extends Readonly<Record<string, Float32Array>>>(
  a: T,
  b: T,
): string[] {
  const bytes = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return Object.keys(a).filter((name) => !bytes(a[name]).equals(bytes(b[name])));
}
