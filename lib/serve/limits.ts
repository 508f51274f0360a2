/** What the server grants its clients: sizes, numbers and times, each with its default. */

export interface Limits {
  /** Bytes of an uploaded file at most. */
  readonly maxBytes: number;
  /** Pixels of an uploaded image at most, told from its header before it is decoded. */
  readonly maxPixels: number;
  /** Jobs that run at once; each uses all threads, so more than 1 only overlaps reading and writing. */
  readonly parallel: number;
  /** Jobs that wait at most; ERR_BUSY (429) beyond. */
  readonly queue: number;
  /** Connections at most; more are closed at once. */
  readonly connections: number;
  /** Milliseconds for a request's header lines, and for all of a request. ERR_TIMEOUT (408) beyond. */
  readonly headersMs: number;
  readonly requestMs: number;
  /** Milliseconds after which an idle connection is closed, and one whose client does not read. */
  readonly keepAliveMs: number;
  readonly stallMs: number;
  /** Milliseconds for jobs that run when the server is told to end; they are stopped beyond. */
  readonly drainMs: number;
}

export const DEFAULT_LIMITS: Limits = {
  maxBytes: 32 * 2 ** 20,
  maxPixels: 2 ** 22,
  parallel: 1,
  queue: 16,
  connections: 256,
  headersMs: 10_000,
  requestMs: 60_000,
  keepAliveMs: 5_000,
  stallMs: 30_000,
  drainMs: 30_000,
};
