/**
 * Long work that tells what happens: awaited for its result, or gone through event by event
 * (`for await`), in which case the result is there afterwards.
 */
import { expected, Spr2qError } from "./errors.ts";

/**
 * Work under way. Nothing is done before it is awaited or its first event is asked for. The work goes
 * as fast as its events are taken: a reader that pauses pauses it, one that leaves (`break`) ends it,
 * and awaiting it then is ERR_ABORTED. Its events can be gone through once.
 */
export class EventRun<Event, Result> implements AsyncIterable<Event>, PromiseLike<Result> {
  readonly #source: AsyncGenerator<Event, Result>;
  readonly #result: Promise<Result>;
  #resolve!: (result: Result) => void;
  #reject!: (error: unknown) => void;
  #begun = false;

  /** `source` yields the events and returns the result. */
  constructor(source: AsyncGenerator<Event, Result>) {
    this.#source = source;
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#result.catch(() => {}); // whoever iterates sees the error there
  }

  /** ERR_ARGUMENT where it is gone through, or awaited, already. */
  [Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    if (this.#begun) {
      const fix = "Start the work again, or keep what its events said.";
      throw expected("ERR_ARGUMENT", "events", "one reader", "a second one", fix);
    }
    this.#begun = true;
    return this.#events();
  }

  // biome-ignore lint/suspicious/noThenProperty: being awaitable is what it is for.
  then<A = Result, B = never>(
    onResult?: ((result: Result) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    if (!this.#begun) {
      this.#begun = true;
      void this.#drain();
    }
    return this.#result.then(onResult, onError);
  }

  async #drain(): Promise<void> {
    try {
      for await (const _ of this.#events());
    } catch {
      // #result has it
    }
  }

  async *#events(): AsyncGenerator<Event, void, undefined> {
    try {
      let step = await this.#source.next();
      for (; !step.done; step = await this.#source.next()) yield step.value;
      this.#resolve(step.value);
    } catch (error) {
      this.#reject(error);
      throw error;
    } finally {
      await this.#source.return(undefined as never);
      this.#reject(new Spr2qError("ERR_ABORTED", "Its reader left before the work's end."));
    }
  }
}
