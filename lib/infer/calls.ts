/**
 * The calls of one upscaler: their order, what stops them, the time that they work, and the
 * diagnostics channels `spr2q:run:start` and `spr2q:run:end`.
 */
import { channel } from "node:diagnostics_channel";
import { Spr2qError, stopped } from "../errors.ts";
import type { ImageShape } from "../io/png.ts";
import { type Leave, RunQueue } from "./queue.ts";

const started = channel("spr2q:run:start");
const ended = channel("spr2q:run:end");
let count = 0;

/** What both channels publish; one object a call, so that subscribers may key by it. */
export interface RunMessage {
  /** Counts the calls of this thread. */
  readonly id: number;
  /** What was called; png() is a "stream" too. */
  readonly kind: "run" | "save" | "stream";
  /** The image, its sides in pixels. */
  readonly image: ImageShape;
  /** Factor by which both sides grow. */
  readonly scale: number;
  /** Bits of weights and activations; 32 for a float model. */
  readonly bits: number;
  /** Where the network runs. */
  readonly device: string;
  /** Milliseconds from the call to its turn. */
  waited: number;
  /** Set at the end: milliseconds that the work took, waiting left out. */
  milliseconds?: number;
  /** Set at the end where the call failed: what it rejects with. */
  error?: Error;
}

/** What a message says before anything has happened. */
export type RunSubject = Omit<RunMessage, "id" | "waited" | "milliseconds" | "error">;

/** One call of run(), save() or stream(); made by {@link Calls.open}. */
export class Call {
  readonly subject: RunSubject;
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #relay = (): void => this.#controller.abort(this.#outer?.reason);
  readonly #called: number = performance.now();
  #failure: { readonly error: unknown } | null = null;
  #message: RunMessage | null = null;
  #began: number | null = null;
  #worked = 0;

  constructor(signal: AbortSignal | undefined, subject: RunSubject) {
    this.#outer = signal;
    this.subject = subject;
    if (signal?.aborted) this.#relay();
    else signal?.addEventListener("abort", this.#relay, { once: true });
  }

  /** Fires for whatever stops the call. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Milliseconds of work so far. */
  get worked(): number {
    return this.#worked;
  }

  /** Stops the call with that error. */
  readonly fail = (error: unknown): void => {
    this.#failure ??= { error };
    this.#controller.abort(error);
  };

  /** The call has its turn: time counts as work until {@link rest}. */
  work(): void {
    this.#began = performance.now();
    if (this.#message) return;
    this.#message = { id: ++count, ...this.subject, waited: this.#began - this.#called };
    started.publish(this.#message);
  }

  rest(): void {
    if (this.#began !== null) this.#worked += performance.now() - this.#began;
    this.#began = null;
  }

  /** What to throw instead of `cause`. */
  error(cause: unknown): unknown {
    if (this.#failure) return this.#failure.error;
    if (!this.signal.aborted) return coded(cause);
    return stopped("Upscaling", this.signal);
  }

  /** The call is over; whatever of it still works is stopped. */
  end(error?: unknown): void {
    this.rest();
    this.#outer?.removeEventListener("abort", this.#relay);
    this.#controller.abort(); // a tile may still run where writing its rows failed
    if (!this.#message) return;
    this.#message.milliseconds = this.#worked;
    if (error !== undefined) this.#message.error = error as Error;
    ended.publish(this.#message);
  }
}

/** V8 says it with a RangeError where an array gets no memory. */
function coded(cause: unknown): unknown {
  if (!(cause instanceof RangeError) || !/allocation failed/i.test(cause.message)) return cause;
  const fix = "Name a smaller tile, or set a maximum of memory, or stream the result.";
  const text = `memory for the image could not be had: ${cause.message}. ${fix}`;
  return new Spr2qError("ERR_OUT_OF_MEMORY", text, { cause });
}

/** All calls of one upscaler. */
export class Calls {
  readonly #open = new Set<Call>();
  readonly #queue = new RunQueue();
  #finished = 0;
  #milliseconds = 0;
  #megapixels = 0;

  /** Figures of {@link Stats}. */
  get stats(): {
    readonly queued: number;
    readonly running: number;
    readonly finished: number;
    readonly msPerMegapixel: number | null;
  } {
    const { queued, running } = this.#queue;
    const msPerMegapixel = this.#megapixels ? this.#milliseconds / this.#megapixels : null;
    return { queued, running, finished: this.#finished, msPerMegapixel };
  }

  /** A new call, which `signal` stops. */
  open(signal: AbortSignal | undefined, subject: RunSubject): Call {
    const call = new Call(signal, subject);
    this.#open.add(call);
    return call;
  }

  /** Does `part` of a call when its turn has come. Rejects as soon as something stops the call. */
  async turn<T>(call: Call, part: () => Promise<T>): Promise<T> {
    const leave: Leave = await this.#queue.enter(call.signal);
    try {
      call.work();
      const result = await part();
      call.signal.throwIfAborted();
      return result;
    } finally {
      call.rest();
      leave();
    }
  }

  /** The call came to its end. */
  finish(call: Call): void {
    this.close(call);
    const { image, scale } = call.subject;
    this.#finished++;
    this.#milliseconds += call.worked;
    this.#megapixels += (image.width * image.height * scale ** 2) / 1e6;
  }

  /** The call is over, once; `error` is what it throws where it failed. */
  close(call: Call, error?: unknown): void {
    if (this.#open.delete(call)) call.end(error);
  }

  /** Stops all of them with that error. */
  fail(error: Spr2qError): void {
    for (const call of this.#open) call.fail(error);
  }

  /** Resolves when nothing runs and nothing waits. */
  idle(): Promise<void> {
    return this.#queue.idle();
  }
}
