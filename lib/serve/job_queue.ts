/** Who may run now: a few jobs at once, a bounded number in order behind them, ERR_BUSY for more. */
import { expected, Spr2qError } from "../errors.ts";

/** Share of the newest job in the running mean of job times. */
const NEWEST = 0.2;
/** Least and most seconds that a refused client is asked to wait. */
const RETRY_SECONDS = { least: 1, most: 600 } as const;

/** Ends a job's turn; harmless when called again. */
export type Release = () => void;

interface Waiting {
  start(): void;
}

export class JobQueue {
  readonly #parallel: number;
  readonly #most: number;
  #running = 0;
  readonly #waiting: Waiting[] = [];
  #meanSeconds = 1;

  /** `parallel` jobs at once, `most` waiting. */
  constructor(parallel: number, most: number) {
    this.#parallel = parallel;
    this.#most = most;
  }

  get running(): number {
    return this.#running;
  }

  get queued(): number {
    return this.#waiting.length;
  }

  /** ERR_BUSY where {@link enter} would throw it now. */
  checkRoom(): void {
    if (this.#running < this.#parallel || this.#waiting.length < this.#most) return;
    const fix = `Try again in ${this.retrySeconds()} s.`;
    throw expected("ERR_BUSY", "queue", `at most ${this.#most} jobs`, "one more", fix);
  }

  /**
   * Resolves when it is the caller's turn; the turn lasts until the result is called. Throws ERR_BUSY
   * at once where the queue is full, and ERR_ABORTED (giving the place up) once `signal` fires.
   */
  enter(signal: AbortSignal): Promise<Release> {
    if (signal.aborted) return Promise.reject(stopped());
    if (this.#running < this.#parallel) return Promise.resolve(this.#begin());
    try {
      this.checkRoom();
    } catch (busy) {
      return Promise.reject(busy);
    }
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(place), 1);
        reject(stopped());
      };
      const place: Waiting = {
        start: () => {
          signal.removeEventListener("abort", leave);
          resolve(this.#begin());
        },
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.push(place);
    });
  }

  /** Seconds after which a place is likely free: the mean job's time for all that are ahead. */
  retrySeconds(): number {
    const ahead = (this.#waiting.length + 1) / this.#parallel;
    const seconds = Math.ceil(this.#meanSeconds * ahead);
    return Math.min(Math.max(seconds, RETRY_SECONDS.least), RETRY_SECONDS.most);
  }

  #begin(): Release {
    this.#running++;
    const began = performance.now();
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      this.#running--;
      const seconds = (performance.now() - began) / 1000;
      this.#meanSeconds += NEWEST * (seconds - this.#meanSeconds);
      this.#waiting.shift()?.start();
    };
  }
}

function stopped(): Spr2qError {
  return new Spr2qError("ERR_ABORTED", "The job was given up while it waited.");
}
