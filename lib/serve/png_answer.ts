/**
 * A PNG as the answer to a request, sent while it is made. The status line waits for the first rows,
 * so that what fails before them is answered as an error.
 */
import type { ServerResponse } from "node:http";
import { Spr2qError } from "../errors.ts";

/**
 * Bytes that may wait for a client to read them before the work on its image waits too: most results
 * are smaller, so that a slow client does not hold up the others.
 */
const BUFFER_BYTES = 16 * 2 ** 20;

/** Headers as {@link ServerResponse.writeHead} takes them. */
type Headers = Readonly<Record<string, string | number>>;

export class PngAnswer {
  readonly #res: ServerResponse;
  readonly #whole: boolean;
  readonly #headers: () => Headers;
  readonly #stallMs: number;
  readonly #signal: AbortSignal;
  /** Bytes not yet sent: all of them where the answer is sent as a whole, else PNG's own header. */
  #held: Uint8Array[] = [];
  #bytes = 0;

  /**
   * `whole`: the answer is sent when it is complete, with Content-Length, and with `headers` as they
   * are then. ERR_TIMEOUT where the client reads nothing for `stallMs`.
   */
  constructor(
    res: ServerResponse,
    whole: boolean,
    headers: () => Headers,
    stallMs: number,
    signal: AbortSignal,
  ) {
    this.#res = res;
    this.#whole = whole;
    this.#headers = headers;
    this.#stallMs = stallMs;
    this.#signal = signal;
  }

  /** Bytes of the PNG so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes the next bytes, which become the answer's. */
  readonly write = async (bytes: Uint8Array): Promise<void> => {
    this.#signal.throwIfAborted();
    const first = this.#bytes === 0;
    this.#bytes += bytes.length;
    if (this.#whole || first) {
      this.#held.push(bytes);
      return;
    }
    this.#begin();
    this.#res.write(bytes);
    if (this.#res.writableLength > BUFFER_BYTES) await this.#drained();
  };

  /** Ends the answer; the client may read on for as long as it reads. */
  end(): void {
    if (this.#whole) {
      this.#res.writeHead(200, { ...this.#headers(), "Content-Length": this.#bytes });
      for (const bytes of this.#held) this.#res.write(bytes);
    } else {
      this.#begin();
    }
    this.#res.end();
    // Node itself goes over to the time that an idle connection has once the answer is through.
    this.#res.setTimeout(this.#stallMs, () => {
      if (!this.#res.writableFinished) this.#res.destroy();
    });
  }

  #begin(): void {
    if (this.#res.headersSent) return;
    this.#res.writeHead(200, this.#headers());
    for (const bytes of this.#held) this.#res.write(bytes);
    this.#held = [];
  }

  #drained(): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.#res.off("drain", drain);
        this.#signal.removeEventListener("abort", abort);
        settle();
      };
      const drain = (): void => finish(resolve);
      const abort = (): void => finish(() => reject(this.#signal.reason));
      const timer = setTimeout(() => {
        const text = `The client read nothing for ${this.#stallMs} ms.`;
        finish(() => reject(new Spr2qError("ERR_TIMEOUT", text)));
      }, this.#stallMs);
      this.#res.on("drain", drain);
      this.#signal.addEventListener("abort", abort, { once: true });
    });
  }
}
