/** Runs of one model, one at a time in the order in which they came. */

/** Gives the turn to the next; may be called again. */
export type Leave = () => void;

/** A queue for one place: whoever enters gets it when all before have left. */
export class RunQueue {
  readonly #waiting: (() => void)[] = [];
  #running = false;
  readonly #whenIdle: (() => void)[] = [];

  /** How many wait for their turn. */
  get queued(): number {
    return this.#waiting.length;
  }

  /** How many have their turn: 0 or 1. */
  get running(): number {
    return this.#running ? 1 : 0;
  }

  /**
   * Resolves when it is the caller's turn, to a function that ends it. Rejects with the signal's
   * reason where it fires before, and then leaves no trace in the queue.
   */
  enter(signal: AbortSignal): Promise<Leave> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const begin = (): void => {
        signal.removeEventListener("abort", give);
        this.#running = true;
        let left = false;
        resolve(() => {
          if (!left) this.#next();
          left = true;
        });
      };
      const give = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(begin), 1);
        reject(signal.reason);
      };
      if (!this.#running) return begin();
      this.#waiting.push(begin);
      signal.addEventListener("abort", give, { once: true });
    });
  }

  /** Resolves when nothing runs and nothing waits. */
  idle(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  #next(): void {
    const begin = this.#waiting.shift();
    this.#running = false;
    if (begin) begin();
    else for (const resolve of this.#whenIdle.splice(0)) resolve();
  }
}
