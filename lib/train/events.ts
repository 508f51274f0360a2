/**
 * What a training or quantisation run says while it goes, as plain objects, and the log file of
 * them: one JSON object per line (log.jsonl). A resumed run cuts the log back to its checkpoint,
 * so the file reads as if the run had never been stopped.
 */
import { closeSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { Spr2qError } from "../errors.ts";

/**
 * Part of a run: training in full precision; mlp and blocks (layer by layer), activations, weights and
 * bounds of the other methods (lib/methods/); the two stages of SPR2Q.
 */
export type Stage =
  | "train"
  | "mlp"
  | "blocks"
  | "activations"
  | "weights"
  | "bounds"
  | "rgt"
  | "osrc";

/** First event of a run, and of each resumption. */
export interface StartEvent {
  /** Tells it from other events. */
  readonly type: "start";
  /** The command that makes this run again. */
  readonly command: string;
  /** Seed of the run. */
  readonly seed: number;
  /** Set where the run goes on from a checkpoint. */
  readonly resumedFrom?: Position;
  /** Recipe, scope, sizes: whatever identifies the run. */
  readonly settings: Readonly<Record<string, string | number | boolean>>;
}

/** A stage begins. */
export interface StageEvent {
  /** Tells it from other events. */
  readonly type: "stage";
  /** Which one. */
  readonly stage: Stage;
  /** How many iterations it will have. */
  readonly iterations: number;
}

/** One optimiser step (or the mean of the steps since the last event). */
export interface StepEvent {
  /** Tells it from other events. */
  readonly type: "step";
  /** The stage that it belongs to. */
  readonly stage: Stage;
  /** Iterations done, from 1. */
  readonly iteration: number;
  /** Iterations of the stage. */
  readonly iterations: number;
  /** The loss, weighted sum of the two below. */
  readonly loss: number;
  /** Mean absolute distance of pixels in 0..1 from the teacher's. */
  readonly pixel: number;
  /** Mean relative squared distance of the layers' outputs from the teacher's. */
  readonly feature: number;
  /** Learning rate of this step. */
  readonly rate: number;
  /** Seconds that the rest of the stage takes at its pace so far. */
  readonly secondsLeft: number;
}

/** Quality on a held-out crop. */
export interface EvalEvent {
  /** Tells it from other events. */
  readonly type: "eval";
  /** The stage that it belongs to. */
  readonly stage: Stage;
  /** Iterations of the stage that were done. */
  readonly iteration: number;
  /** dB on the luma channel. */
  readonly psnr: number;
}

/** Where the trained quantities are: taken some fifty times a stage, for plots. */
export interface StateEvent {
  /** Tells it from other events. */
  readonly type: "state";
  /** The stage that it belongs to. */
  readonly stage: Stage;
  /** Iterations done; 0 before the first. */
  readonly iteration: number;
  /** Median range (upper - lower bound) by kind of site. */
  readonly ranges: Readonly<Record<string, number>>;
  /** Of each layer's largest gate; null without static gates. */
  readonly largestGate: {
    /** Their median. */
    readonly median: number;
    /** The greatest of them. */
    readonly greatest: number;
  } | null;
}

/** A checkpoint was written. */
export interface CheckpointEvent {
  /** Tells it from other events. */
  readonly type: "checkpoint";
  /** The stage that it belongs to. */
  readonly stage: Stage;
  /** Iterations of the stage that were done. */
  readonly iteration: number;
  /** Its path. */
  readonly file: string;
}

/** The routing table of the finished model: gates of every rectified layer, on the simplex. */
export interface RouteEvent {
  /** Tells it from other events. */
  readonly type: "route";
  /** Gates by layer, each list with a sum of 1. */
  readonly layers: Readonly<Record<string, readonly number[]>>;
  /** Which gates were kept: those of OSRC ("calibrated") where they lost no more, else of RGT. */
  readonly kept: "calibrated" | "trained";
  /** Mean calibration loss before OSRC; null where it did not run. */
  readonly lossBefore: number | null;
  /** The same after it. */
  readonly lossAfter: number | null;
}

/** Last event of a run. */
export interface DoneEvent {
  /** Tells it from other events. */
  readonly type: "done";
  /** Seconds that the run took since it was started or resumed. */
  readonly seconds: number;
  /** What the command prints at its end. */
  readonly summary: Readonly<Record<string, string | number | boolean>>;
}

/** Any event; tell them apart by `type`. */
export type TrainEvent =
  | StartEvent
  | StageEvent
  | StepEvent
  | EvalEvent
  | StateEvent
  | CheckpointEvent
  | RouteEvent
  | DoneEvent;

/** A point in a run: `iteration` iterations of `stage` are done. */
export interface Position {
  /** A stage of the run. */
  readonly stage: Stage;
  /** Iterations of it that are done. */
  readonly iteration: number;
}

/** Stages in the order in which a run goes through them. */
const ORDER: readonly Stage[] = [
  "train",
  "mlp",
  "blocks",
  "activations",
  "weights",
  "bounds",
  "rgt",
  "osrc",
];

/** Whether an event belongs to the time after `position`. */
export function isAfter(event: TrainEvent, position: Position): boolean {
  if (event.type === "start") return false;
  if (event.type === "done" || event.type === "route") return true;
  const stages = ORDER.indexOf(event.stage) - ORDER.indexOf(position.stage);
  if (stages !== 0) return stages > 0;
  return event.type !== "stage" && event.iteration > position.iteration;
}

function parseLine(line: string): TrainEvent | undefined {
  try {
    const event = JSON.parse(line);
    return typeof event?.type === "string" ? event : undefined;
  } catch {
    return undefined;
  }
}

/** Text of a log, empty where there is no file. @throws ERR_IO */
function readLog(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return Buffer.alloc(0);
    throw new Spr2qError("ERR_IO", `log ${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** Whole lines of a log with the byte where each ends; stops at a torn or foreign line. */
function* wholeLines(log: Buffer): Generator<{ event: TrainEvent; end: number }> {
  let start = 0;
  for (;;) {
    const end = log.indexOf(10, start) + 1;
    if (end === 0) return;
    const event = parseLine(log.toString("utf8", start, end - 1));
    if (event === undefined) return;
    yield { event, end };
    start = end;
  }
}

/** All events of a log; a last line that a kill left torn is passed over. @throws ERR_IO */
export function readEvents(path: string): TrainEvent[] {
  return Array.from(wholeLines(readLog(path)), ({ event }) => event);
}

/** Appends events to a log, one line each in one write: a kill tears at most the last line. */
export class JsonLines {
  readonly path: string;
  #file: number | undefined;

  private constructor(path: string, file: number) {
    this.path = path;
    this.#file = file;
  }

  /**
   * Opens the log of a run. Without `resumeAt` an old log is emptied; with it the old log is kept
   * up to that point, its later (and torn) lines are cut off. @throws ERR_IO
   */
  static open(path: string, resumeAt?: Position): JsonLines {
    try {
      if (resumeAt !== undefined) {
        let keep = 0;
        const log = readLog(path);
        for (const { event, end } of wholeLines(log)) {
          if (isAfter(event, resumeAt)) break;
          keep = end;
        }
        if (keep < log.length) truncateSync(path, keep);
      }
      return new JsonLines(path, openSync(path, resumeAt === undefined ? "w" : "a"));
    } catch (error) {
      if (error instanceof Spr2qError) throw error;
      throw new Spr2qError("ERR_IO", `log ${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Appends one event. @throws ERR_IO, ERR_DISPOSED */
  write(event: TrainEvent): void {
    if (this.#file === undefined)
      throw new Spr2qError("ERR_DISPOSED", `log ${this.path} is closed`);
    try {
      writeSync(this.#file, `${JSON.stringify(event)}\n`);
    } catch (error) {
      throw new Spr2qError("ERR_IO", `log ${this.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** Closes the file; a second call does nothing. */
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
