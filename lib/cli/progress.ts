/**
 * One status line on stderr: what is being done, how far, how fast, how long still. On a terminal
 * the line is redrawn in place; otherwise a plain line is written every ten seconds or so.
 */

/** What a piece of work reports; `done` counts up to `total` in `unit`s. */
export interface ProgressState {
  readonly label: string;
  readonly done: number;
  /** Left out where unknown: no percentage and no time left are shown then. */
  readonly total?: number;
  /** Plural noun of what is counted, for example "iterations"; none: no rate is shown. */
  readonly unit?: string;
  /** Short text at the end, for example "loss 0.0123". */
  readonly note?: string;
}

/** The part of the status line that commands use. */
export interface Progress {
  /** Shows a new state; cheap enough to call for every step. */
  update(state: ProgressState): void;
  /** Ends the current piece of work: its last state is written, and its line left standing. */
  finish(): void;
}

/** Where and how the line is written. */
export interface ProgressTarget {
  write(text: string): void;
  readonly isTty: boolean;
  /** Width of the terminal in characters. */
  readonly columns: number;
  readonly quiet: boolean;
  /** Milliseconds of a clock that never goes back. */
  now(): number;
}

/** Least time between two drawings on a terminal, in milliseconds: ten a second are plenty. */
const REDRAW_MS = 100;
/** Least time between two plain lines, in milliseconds. */
const PLAIN_MS = 10_000;
/** Speed is taken over about this long, in milliseconds: it follows but does not flicker. */
const RATE_WINDOW_MS = 15_000;

/** "42 s", "3 min 05 s", "2 h 07 min". */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const two = (n: number) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** "12.3 images/s", or "4.1 s per image" below one a second. */
export function formatRate(perSecond: number, unit: string): string {
  if (perSecond >= 1) return `${perSecond.toFixed(perSecond < 100 ? 1 : 0)} ${unit}/s`;
  return `${(1 / perSecond).toFixed(1)} s per ${unit.replace(/s$/, "")}`;
}

/** The status line itself; the command line owns one. */
export class ProgressLine implements Progress {
  readonly #target: ProgressTarget;
  /** (time, done) of recent updates, oldest first. */
  #history: [number, number][] = [];
  #state: ProgressState | undefined;
  #drawnAt = -Infinity;
  #onScreen = false;
  #unwritten = false;

  constructor(target: ProgressTarget) {
    this.#target = target;
  }

  update(state: ProgressState): void {
    if (this.#target.quiet) return;
    const now = this.#target.now();
    const isNew = this.#state?.label !== state.label || state.done < this.#state.done;
    if (isNew) {
      this.finish();
      this.#history = [];
      // A short job leaves no plain line before its end; a terminal shows it at once.
      this.#drawnAt = this.#target.isTty ? -Infinity : now;
    }
    this.#state = state;
    this.#unwritten = true;
    this.#remember(now, state.done);
    const wait = this.#target.isTty ? REDRAW_MS : PLAIN_MS;
    if (now - this.#drawnAt >= wait) this.#draw(now);
  }

  finish(): void {
    if (this.#state === undefined) return;
    if (this.#unwritten) this.#draw(this.#target.now());
    if (this.#onScreen) this.#target.write("\n");
    this.#onScreen = false;
    this.#state = undefined;
  }

  /** Takes the line off the terminal so that something else can be written; it comes back. */
  clear(): void {
    if (this.#onScreen) this.#target.write("\r\x1b[K");
    this.#onScreen = false;
    this.#drawnAt = this.#target.isTty ? -Infinity : this.#drawnAt;
  }

  #remember(now: number, done: number): void {
    const last = this.#history.at(-1);
    // Updates of the same instant count as one, so that the list stays short.
    if (last !== undefined && this.#history.length > 1 && now - last[0] < REDRAW_MS) {
      last[1] = done;
    } else {
      this.#history.push([now, done]);
    }
    while (this.#history.length > 2 && now - this.#history[1][0] > RATE_WINDOW_MS)
      this.#history.shift();
  }

  /** Units per second over the recent past; undefined before anything moved. */
  #rate(): number | undefined {
    const [first, last] = [this.#history[0], this.#history.at(-1)];
    if (last === undefined || last[0] <= first[0] || last[1] <= first[1]) return undefined;
    return ((last[1] - first[1]) * 1000) / (last[0] - first[0]);
  }

  #text(state: ProgressState): string {
    const { label, done, total, unit, note } = state;
    const parts = [total === undefined ? `${label} ${done}` : `${label} ${done}/${total}`];
    if (total !== undefined && total > 0) parts[0] += ` (${Math.floor((100 * done) / total)} %)`;
    const rate = this.#rate();
    if (rate !== undefined && unit !== undefined) parts.push(formatRate(rate, unit));
    if (rate !== undefined && total !== undefined && done < total) {
      parts.push(`${formatDuration((total - done) / rate)} left`);
    }
    if (note !== undefined && note !== "") parts.push(note);
    return parts.join(", ");
  }

  #draw(now: number): void {
    if (this.#state === undefined) return;
    const text = this.#text(this.#state);
    this.#drawnAt = now;
    this.#unwritten = false;
    if (!this.#target.isTty) {
      this.#target.write(`${text}\n`);
      return;
    }
    // One column stays free: a full line would wrap on some terminals and could not be taken back.
    this.#target.write(`\r\x1b[K${text.slice(0, Math.max(1, this.#target.columns - 1))}`);
    this.#onScreen = true;
  }
}
