/** An uploaded file, read with its limits held while it comes, not after. */
import type { IncomingMessage } from "node:http";
import { expected, Spr2qError } from "../errors.ts";
import { HEAD_BYTES } from "../io/pictures.ts";

/** Bytes of uploads that may be in memory at once, over all requests. */
export class UploadBudget {
  readonly #most: number;
  #taken = 0;

  constructor(most: number) {
    this.#most = most;
  }

  get taken(): number {
    return this.#taken;
  }

  /** ERR_BUSY where uploads under way hold too much already. */
  take(bytes: number): void {
    if (this.#taken + bytes > this.#most) {
      const fix = "Try again when others are done.";
      throw expected("ERR_BUSY", "uploads at once", `at most ${this.#most} bytes`, "more", fix);
    }
    this.#taken += bytes;
  }

  give(bytes: number): void {
    this.#taken -= bytes;
  }
}

/** ERR_LIMIT where a body of `bytes` is too large. */
export function checkBytes(bytes: number, most: number): void {
  if (bytes <= most) return;
  throw expected("ERR_LIMIT", "file", `at most ${most} bytes`, `${bytes} or more`);
}

/**
 * All bytes of a request's body. `onHead` sees the first {@link HEAD_BYTES} as soon as they are there
 * and may refuse the rest by throwing. Throws ERR_LIMIT beyond `most` bytes, ERR_BUSY from `budget`
 * (which holds the bytes until the caller gives them back), ERR_ABORTED where the client leaves.
 */
export function readBody(
  req: IncomingMessage,
  most: number,
  budget: UploadBudget,
  onHead: (head: Uint8Array) => void,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let total = 0;
    let seen = false;
    const finish = (settle: () => void): void => {
      req.off("data", data).off("end", end).off("close", close).off("error", close);
      settle();
    };
    const attempt = (work: () => void): boolean => {
      try {
        work();
        return true;
      } catch (error) {
        budget.give(total);
        finish(() => reject(error));
        return false;
      }
    };
    const look = (): void => {
      seen = true;
      onHead(Buffer.concat(chunks).subarray(0, HEAD_BYTES));
    };
    const data = (chunk: Buffer): void => {
      attempt(() => {
        checkBytes(total + chunk.length, most);
        budget.take(chunk.length);
        total += chunk.length;
        chunks.push(chunk);
        if (!seen && total >= HEAD_BYTES) look();
      });
    };
    const end = (): void => {
      if (!seen && !attempt(look)) return;
      const bytes = new Uint8Array(total);
      let at = 0;
      for (const chunk of chunks) {
        bytes.set(chunk, at);
        at += chunk.length;
      }
      finish(() => resolve(bytes));
    };
    const close = (): void => {
      attempt(() => {
        throw new Spr2qError("ERR_ABORTED", "The client left before its file was complete.");
      });
    };
    req.on("data", data).on("end", end).on("close", close).on("error", close);
  });
}
