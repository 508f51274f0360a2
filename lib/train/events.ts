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
  readonly type: "start";
  /** The command that makes this run again. */
  readonly command: string;
  readonly seed: number;
  /** Set where the run goes on from a checkpoint. */
  readonly resumedFrom?: Position;
  /** Recipe, scope, sizes: whatever identifies the run. */
  readonly settings: Readonly<Record<string, string | number | boolean>>;
}

/** A stage begins. */
export interface StageEvent {
  readonly type: "stage";
  readonly stage: Stage;
  /** How many iterations it will have. */
  readonly iterations: number;
}

/** One optimiser step (or the mean of the steps since the last event). */
export interface StepEvent {
  readonly type: "step";
  readonly stage: Stage;
  /** Iterations done, from 1. */
  readonly iteration: number;
  readonly iterations: number;
  /** The loss and its parts: distance of pixels, distance of features (unweighted). */
  readonly loss: number;
  readonly pixel: number;
  readonly feature: number;
  /** Learning rate of this step. */
  readonly rate: number;
  readonly secondsLeft: number;
}

/** Quality on a held-out crop. */
export interface EvalEvent {
  readonly type: "eval";
  readonly stage: Stage;
  readonly iteration: number;
  /** dB on the luma channel. */
  readonly psnr: number;
}

/** Where the trained quantities are: taken some fifty times a stage, for plots. */
export interface StateEvent {
  readonly type: "state";
  readonly stage: Stage;
  /** Iterations done; 0 before the first. */
  readonly iteration: number;
  /** Median range (upper - lower bound) by kind of site. */
  readonly ranges: Readonly<Record<string, number>>;
  /** Of each layer's largest gate the median and the greatest; null without static gates. */
  readonly largestGate: { readonly median: number; readonly greatest: number } | null;
}

/** A checkpoint was written. */
export interface CheckpointEvent {
  readonly type: "checkpoint";
  readonly stage: Stage;
  readonly iteration: number;
  readonly file: string;
}

/** The routing table of the finished model: gates of every rectified layer, on the simplex. */
export interface RouteEvent {
  readonly type: "route";
  readonly layers: Readonly<Record<string, readonly number[]>>;
  /** Which gates were kept, and the losses that decided it; null where OSRC did not run. */
  readonly kept: "calibrated" | "trained";
  readonly lossBefore: number | null;
  readonly lossAfter: number | null;
}

/** Last event of a run. */
export interface DoneEvent {
  readonly type: "done";
  readonly seconds: number;
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
  readonly stage: Stage;
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
