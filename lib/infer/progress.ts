/** Progress as callers want it: never more than twenty times a second, from 0 to 1. */

/** Least time between two calls, in milliseconds. */
const BETWEEN = 50;

/** Passes shares on to a callback: 0 at once, then what moved, 1 at the end. */
export class ShareReporter {
  readonly #call: ((share: number) => void) | undefined;
  readonly #fail: (error: unknown) => void;
  #told = Number.NEGATIVE_INFINITY;
  #share = -1;

  /** What `call` throws goes to `fail`, since it may be called between any two steps of the work. */
  constructor(call: ((share: number) => void) | undefined, fail: (error: unknown) => void) {
    this.#call = call;
    this.#fail = fail;
    this.#tell(0);
  }

  /** `share` of the work is done; 1 is left to {@link finish}. */
  update(share: number): void {
    if (share > this.#share && share < 1 && performance.now() - this.#told >= BETWEEN) {
      this.#tell(share);
    }
  }

  /** All of it is done. */
  finish(): void {
    this.#tell(1);
  }

  #tell(share: number): void {
    this.#share = share;
    this.#told = performance.now();
    try {
      this.#call?.(share);
    } catch (error) {
      this.#fail(error);
    }
  }
}
