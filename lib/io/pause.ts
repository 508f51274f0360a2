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
