/**
 * The one error class of spr2q and its stable codes. A message says what was checked, what was
 * expected, what came, and (where there is one) what to do about it.
 */

/** Stable, documented codes; the message may change between releases, a code may not. */
export const ERROR_CODES = {
  ERR_ARGUMENT: "an argument has the wrong type or lies outside its range",
  ERR_USAGE: "the command line asks for something that does not exist (exit code 2)",
  ERR_SHAPE: "a tensor has another shape than the operation or the network needs",
  ERR_CHECKPOINT: "a weight file is damaged, incomplete, or not one this project can read",
  ERR_PICKLE: "a .pth file asks for something outside the allow-list of the restricted reader",
  ERR_IMAGE: "an image is damaged, empty, or of a kind this project cannot read",
  ERR_NEED_SHARP: "the image is JPEG, WebP or AVIF, which needs the optional package sharp",
  ERR_LIMIT: "a request is larger than the server's limits",
  ERR_NOT_FOUND: "the server has no such path or model",
  ERR_METHOD: "the path does not take this HTTP method",
  ERR_FORBIDDEN: "the request comes from a page of another site",
  ERR_BUSY: "the server's queue is full; try again later",
  ERR_CLOSING: "the server finishes what it has and takes nothing new",
  ERR_TIMEOUT: "the client took too long to send its request or to read the answer",
  ERR_ARCHITECTURE: "the tensors of a weight file belong to no network known here",
  ERR_CONFIG: "a configuration file or recipe has a bad entry",
  ERR_DATA: "a folder lacks the images that the command needs",
  ERR_IO: "reading or writing a file failed",
  ERR_NO_BINARY: "the native addon could not be loaded",
  ERR_NATIVE: "the native half refused a call",
  ERR_OUT_OF_MEMORY: "memory for the work could not be had",
  ERR_GPU_UNAVAILABLE: "the CUDA backend was asked for and cannot be used",
  ERR_GPU_LOST: "the GPU failed while work was running on it",
  ERR_DISPOSED: "the object was used after dispose()",
  ERR_INTERNAL: "a defect of this program; please report it",
  ERR_ABORTED: "the work was stopped by its AbortSignal or by Ctrl-C",
  ERR_RESUME: "a training checkpoint does not belong to this command",
} as const;

/** One of the keys of {@link ERROR_CODES}. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** Every error that spr2q throws on purpose. Branch on `code`, show `message`. */
export class Spr2qError extends Error {
  /** A key of {@link ERROR_CODES}; stable between releases. */
  readonly code: ErrorCode;

  /** An error under `code`; `options.cause` is what led to it. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "Spr2qError";
    this.code = code;
  }
}

/** Builds "WHAT: expected X, got Y. FIX" under `code`; throw the result. */
export function expected(
  code: ErrorCode,
  what: string,
  wanted: string,
  got: string,
  fix = "",
): Spr2qError {
  return new Spr2qError(code, `${what}: expected ${wanted}, got ${got}.${fix ? ` ${fix}` : ""}`);
}

/** ERR_ABORTED for work (as "Upscaling") that a signal stopped; its reason is the cause. */
export function stopped(work: string, signal: AbortSignal | undefined): Spr2qError {
  const cause = signal?.reason;
  return new Spr2qError("ERR_ABORTED", `${work} was stopped before its end.`, { cause });
}
