/** Long loops over pixels on the JavaScript thread, in parts between which the event loop turns. */
import { setImmediate } from "node:timers/promises";

/** Most milliseconds that a loop holds the event loop. */
const MOST_HELD = 4;
/** Samples between two looks at the clock: about a millisecond's work. */
const SAMPLES = 2 ** 16;

/** Rows of `samples` samples each that a loop should go through between two pauses. */
export function rowsAtOnce(samples: number): number {
  return Math.max(1, Math.floor(SAMPLES / samples));
}

/** Work that may pause wherever it yields, some {@link PIXELS_AT_ONCE} pixels on. */
export type InParts<T> = Generator<undefined, T, undefined>;

/** Pixels between two yields of work that looks at a few values of each: less than a millisecond. */
export const PIXELS_AT_ONCE: number = 2 ** 12;

/** All of it, without a pause. */
export function atOnce<T>(work: InParts<T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}

/** All of it, with pauses for the event loop; what `signal` says ends it. */
export async function paced<T>(work: InParts<T>, signal?: AbortSignal): Promise<T> {
  const pauses = new Pauses();
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    await pauses.pause();
    signal?.throwIfAborted();
  }
}

/** Knows how long the caller has held the event loop. */
export class Pauses {
  #since = performance.now();

  /** Lets other work of the event loop come first where this has gone on for long. */
  async pause(): Promise<void> {
    if (performance.now() - this.#since < MOST_HELD) return;
    await setImmediate();
    this.#since = performance.now();
  }

  /** The event loop has turned: the caller comes from waiting for something. */
  restart(): void {
    this.#since = performance.now();
  }
}
