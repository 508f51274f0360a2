/** POST /upscale: one image in, its enlargement out as a PNG, within the server's limits. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { expected, Spr2qError } from "../errors.ts";
import { requireKind } from "../io/pictures.ts";
import { type ImageShape, outlinePng } from "../io/png.ts";
import { writePng } from "../io/png_writer.ts";
import type { RasterImage } from "../io/raster.ts";
import type { Accounts } from "./accounts.ts";
import { checkBytes, readBody, UploadBudget } from "./body.ts";
import type { Catalogue, Entry } from "./catalogue.ts";
import type { JobQueue } from "./job_queue.ts";
import type { Limits } from "./limits.ts";
import { PixelThread } from "./pixels.ts";
import { PngAnswer } from "./png_answer.ts";
import { type Query, readQuery } from "./query.ts";

/** What uploads are called in messages. */
const NAME = "image";

/** What the log says of a request beside its path and status. */
export interface JobNotes {
  model?: string;
  /** Sides of the upload in pixels. */
  width?: number;
  height?: number;
  /** Seconds in the queue, of decoding, in the network. */
  wait?: number;
  decode?: number;
  run?: number;
}

/** ERR_LIMIT or ERR_ARGUMENT by the request's headers, before its body is read. */
function checkHeaders(req: IncomingMessage, maxBytes: number): void {
  const { "content-encoding": encoding, "content-type": type = "" } = req.headers;
  const fix = "Send the file's own bytes: curl --data-binary @picture.png URL";
  if (encoding !== undefined && encoding !== "identity") {
    throw expected("ERR_ARGUMENT", "Content-Encoding", "none", encoding, fix);
  }
  if (/^multipart\//i.test(type)) {
    throw expected("ERR_ARGUMENT", "Content-Type", "an image's", "a form's", fix);
  }
  checkBytes(Number(req.headers["content-length"] ?? 0), maxBytes);
}

/** ERR_LIMIT where an image has more pixels than `most`. */
function checkPixels({ width, height }: ImageShape, most: number): void {
  if (width * height <= most) return;
  const got = `${width}x${height}, which is ${width * height}`;
  const fix = "Cut it into parts, or start the server with a larger --max-pixels.";
  throw expected("ERR_LIMIT", `${NAME}: size`, `at most ${most} pixels`, got, fix);
}

/** Seconds since `began`. */
const since = (began: number): number => (performance.now() - began) / 1000;

export class Upscaling {
  readonly #catalogue: Catalogue;
  readonly #queue: JobQueue;
  readonly #accounts: Accounts;
  readonly #limits: Limits;
  readonly #pixels = new PixelThread();
  readonly #uploads: UploadBudget;

  constructor(catalogue: Catalogue, queue: JobQueue, accounts: Accounts, limits: Limits) {
    this.#catalogue = catalogue;
    this.#queue = queue;
    this.#accounts = accounts;
    this.#limits = limits;
    this.#uploads = new UploadBudget(limits.maxBytes * (limits.queue + limits.parallel));
  }

  /**
   * Answers one request, or throws for what can still be answered as an error. `goOn` tells a client
   * that waits for leave to send its file (Expect: 100-continue). `signal` ends the work.
   */
  async answer(
    req: IncomingMessage,
    res: ServerResponse,
    params: URLSearchParams,
    signal: AbortSignal,
    goOn: () => void,
    notes: JobNotes,
  ): Promise<void> {
    const query = readQuery(params);
    const entry = this.#catalogue.find(query.model);
    notes.model = entry.name;
    checkHeaders(req, this.#limits.maxBytes);
    this.#queue.checkRoom();
    goOn();
    const onHead = (head: Uint8Array): void => {
      if (requireKind(head, NAME) !== "png") return;
      checkPixels(outline(head), this.#limits.maxPixels);
    };
    const file = await readBody(req, this.#limits.maxBytes, this.#uploads, onHead);
    const size = file.length;
    this.#accounts.received.add(size);
    try {
      await this.#take(res, query, entry, file, signal, notes);
      this.#accounts.jobs.add(1, entry.name, "done");
    } catch (cause) {
      this.#accounts.jobs.add(1, entry.name, signal.aborted ? "cancelled" : "failed");
      throw cause;
    } finally {
      this.#uploads.give(size);
    }
  }

  /** Ends the thread that decodes. */
  close(): Promise<void> {
    return this.#pixels.close();
  }

  /** Waits for a turn and works on one file. */
  async #take(
    res: ServerResponse,
    query: Query,
    entry: Entry,
    file: Uint8Array,
    signal: AbortSignal,
    notes: JobNotes,
  ): Promise<void> {
    if (requireKind(file, NAME) !== "png") {
      checkPixels(await this.#pixels.outline(file, NAME), this.#limits.maxPixels);
    }
    let began = performance.now();
    const release = await this.#queue.enter(signal);
    try {
      notes.wait = since(began);
      this.#accounts.wait.observe(notes.wait);
      began = performance.now();
      const image = await this.#pixels.decode(file, NAME);
      notes.decode = since(began);
      notes.width = image.width;
      notes.height = image.height;
      await this.#send(res, query, entry, image, signal, notes);
    } finally {
      release();
    }
  }

  /** Enlarges an image into the answer. */
  async #send(
    res: ServerResponse,
    query: Query,
    entry: Entry,
    image: RasterImage,
    signal: AbortSignal,
    notes: JobNotes,
  ): Promise<void> {
    const { width, height, channels, depth } = image;
    const { name, scale } = entry;
    const shape = { width: width * scale, height: height * scale, channels, depth };
    const headers = () => ({
      "Content-Type": "image/png",
      "X-Spr2q-Model": name,
      "Server-Timing": timing(notes, !query.stream),
    });
    const answer = new PngAnswer(res, !query.stream, headers, this.#limits.stallMs, signal);
    notes.run = 0;
    await writePng(shape, timed(this.#rows(entry, image, query, signal), notes), answer.write);
    signal.throwIfAborted();
    answer.end();
    this.#accounts.run.observe(notes.run, name);
    this.#accounts.pixels.add(shape.width * shape.height, name);
    this.#accounts.sent.add(answer.bytes);
  }

  /** The result's rows, a band at a time. */
  async *#rows(
    { upscaler, scale }: Entry,
    image: RasterImage,
    { seed }: Query,
    signal: AbortSignal,
  ): AsyncGenerator<RasterImage["data"]> {
    signal.throwIfAborted();
    if (upscaler === null) {
      yield (await this.#pixels.bicubic(image, scale)).data;
      return;
    }
    for await (const band of upscaler.stream(image, { seed, signal })) yield band.data;
  }
}

/** Size and kind of a PNG, however large. */
function outline(head: Uint8Array): ImageShape {
  return outlinePng(head, NAME, { maxSamples: Number.MAX_SAFE_INTEGER });
}

/** Passes rows on and adds to notes.run the seconds that each took to come. */
async function* timed<T>(rows: AsyncGenerator<T>, notes: JobNotes): AsyncGenerator<T> {
  try {
    for (;;) {
      const began = performance.now();
      const { done, value } = await rows.next();
      notes.run = (notes.run ?? 0) + since(began);
      if (done) return;
      yield value;
    }
  } finally {
    await rows.return(undefined);
  }
}

/** Server-Timing of what is known: milliseconds of each part; the network's once it is through. */
function timing({ wait, decode, run }: JobNotes, complete: boolean): string {
  const parts = { wait, decode, run: complete ? run : undefined };
  return Object.entries(parts)
    .filter(([, seconds]) => seconds !== undefined)
    .map(([name, seconds]) => `${name};dur=${((seconds as number) * 1000).toFixed(1)}`)
    .join(", ");
}

/** What a client that has left makes of the work on its image. */
export function clientLeft(): Spr2qError {
  return new Spr2qError("ERR_ABORTED", "The client left before its answer was complete.");
}
