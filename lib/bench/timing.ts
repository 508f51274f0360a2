/**
 * Interleaved timing: one sample of each side in turn (A B A B ...), so that a noisy minute on a
 * shared machine falls on all of them alike. A sample of a short job repeats it until it is long
 * enough for the clock.
 */

/** Seconds of one side: median and minimum are what is quoted. */
export interface Timing {
  readonly median: number;
  readonly min: number;
  readonly samples: readonly number[];
}

/** One side of a comparison. */
export interface Side {
  /** Called before every sample, outside the clock: chooses backend and threads. */
  prepare?(): void;
  /** The work. A promise is awaited inside the clock. */
  run(): unknown;
  /** Takes the seconds from `run`'s result (a peer in another process) instead of our clock. */
  readonly reports?: boolean;
}

export interface TimingOptions {
  /** Samples a side, after one that is thrown away. */
  readonly runs: number;
  readonly signal?: AbortSignal;
  /** Least seconds of one sample; shorter jobs are repeated. Default {@link SAMPLE_SECONDS}. */
  readonly sampleSeconds?: number;
}

/** A sample shorter than this, in seconds, would measure the scheduler of a shared machine. */
export const SAMPLE_SECONDS = 0.01;
/** Seconds between two samples: idle threads of the other side stop spinning in that time. */
const PAUSE_SECONDS = 0.02;

/** Middle value; of an even count the mean of the two in the middle. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/**
 * The 95 % interval of the median of what the samples are drawn from, by order statistics: of nine
 * values the second and the eighth (96 %). Fewer than six values tell no more than their range.
 */
export function medianInterval(values: readonly number[]): [number, number] {
  const sorted = [...values].sort((a, b) => a - b);
  const outer = Math.max(0, Math.floor(sorted.length / 2 - 0.98 * Math.sqrt(sorted.length)));
  return [sorted[outer], sorted[sorted.length - 1 - outer]];
}

/** Median and minimum of samples in seconds. */
export function timingOf(samples: readonly number[]): Timing {
  return { median: median(samples), min: Math.min(...samples), samples };
}

async function sample(side: Side, repeats: number): Promise<number> {
  side.prepare?.();
  let reported = 0;
  const began = performance.now();
  for (let i = 0; i < repeats; i++) {
    const result = side.run();
    const value = result instanceof Promise ? await result : result;
    if (side.reports) reported += value as number;
  }
  const seconds = side.reports ? reported : (performance.now() - began) / 1000;
  return seconds / repeats;
}

/** Times every side `runs` times in turn; the first round warms caches, pools and pages. */
export async function interleave(
  sides: readonly Side[],
  { runs, signal, sampleSeconds = SAMPLE_SECONDS }: TimingOptions,
): Promise<Timing[]> {
  const repeats: number[] = [];
  for (const side of sides) {
    signal?.throwIfAborted();
    await sample(side, 1);
    const once = await sample(side, 1);
    repeats.push(Math.max(1, Math.min(1000, Math.ceil(sampleSeconds / Math.max(once, 1e-7)))));
  }
  const samples = sides.map((): number[] => []);
  for (let run = 0; run < runs; run++) {
    for (const [i, side] of sides.entries()) {
      signal?.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_SECONDS * 1000));
      samples[i].push(await sample(side, repeats[i]));
    }
  }
  return samples.map(timingOf);
}

/**
 * The cost of one of `steps` like steps by which a long job exceeds a short one: what a call costs
 * besides its steps falls out. Median and minimum are differences of medians and minima, which
 * noise disturbs less than it disturbs the difference of two single samples.
 */
export function perStep(long: Timing, short: Timing, steps: number): Timing {
  return {
    median: (long.median - short.median) / steps,
    min: (long.min - short.min) / steps,
    samples: long.samples.map((seconds, i) => (seconds - short.samples[i]) / steps),
  };
}
