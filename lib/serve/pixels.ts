/**
 * Decoding and bicubic interpolation on a thread of their own: both hold a thread for as long as they
 * take, and the one that answers requests must not stand still. A thread that dies (out of memory,
 * say) fails its tasks and is replaced.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { type ErrorCode, Spr2qError } from "../errors.ts";
import type { ImageShape } from "../io/png.ts";
import type { RasterImage } from "../io/raster.ts";

/** What the thread is asked for. */
export type PixelTask =
  | { readonly kind: "outline"; readonly bytes: Uint8Array; readonly name: string }
  | { readonly kind: "decode"; readonly bytes: Uint8Array; readonly name: string }
  | { readonly kind: "bicubic"; readonly image: RasterImage; readonly scale: number };

/** What it answers. */
export type PixelAnswer =
  | { readonly id: number; readonly value: RasterImage | ImageShape }
  | { readonly id: number; readonly code: ErrorCode | null; readonly message: string };

interface Pending {
  resolve(value: RasterImage | ImageShape): void;
  reject(error: unknown): void;
}

/** The compiled thread: beside this file, or in dist/ where the sources run (as in tests). */
function workerFile(): string {
  const beside = fileURLToPath(new URL("./pixels_worker.js", import.meta.url));
  if (existsSync(beside)) return beside;
  return fileURLToPath(new URL("../../dist/lib/serve/pixels_worker.js", import.meta.url));
}

export class PixelThread {
  #worker: Worker | null = null;
  readonly #pending = new Map<number, Pending>();
  #nextId = 0;

  /** Size and kind of the image in `bytes`, from its header; errors are those of outlineBytes. */
  outline(bytes: Uint8Array, name: string): Promise<ImageShape> {
    return this.#ask({ kind: "outline", bytes, name });
  }

  /** The image in `bytes`, which are given away; errors are those of decodeImage. */
  decode(bytes: Uint8Array, name: string): Promise<RasterImage> {
    return this.#ask({ kind: "decode", bytes, name }, bytes) as Promise<RasterImage>;
  }

  /** `image` enlarged by bicubic interpolation, straight alpha and depth kept. */
  bicubic(image: RasterImage, scale: number): Promise<RasterImage> {
    return this.#ask({ kind: "bicubic", image, scale }, image.data) as Promise<RasterImage>;
  }

  /** Ends the thread; what it works on fails with ERR_ABORTED. */
  async close(): Promise<void> {
    const worker = this.#worker;
    this.#lose(worker, new Spr2qError("ERR_ABORTED", "The server ended."));
    await worker?.terminate();
  }

  #ask(task: PixelTask, given?: Uint8Array | Uint16Array): Promise<RasterImage | ImageShape> {
    const worker = this.#start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage({ id, task }, given ? [given.buffer as ArrayBuffer] : []);
    });
  }

  #start(): Worker {
    if (this.#worker) return this.#worker;
    const worker = new Worker(workerFile());
    this.#worker = worker;
    worker.on("message", (answer: PixelAnswer) => this.#settle(worker, answer));
    worker.on("error", (cause) => this.#lose(worker, died(cause)));
    worker.on("exit", (code) => this.#lose(worker, died(new Error(`it ended with ${code}`))));
    return worker;
  }

  #settle(worker: Worker, answer: PixelAnswer): void {
    const pending = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (this.#pending.size === 0) worker.unref();
    if ("value" in answer) pending?.resolve(answer.value);
    else if (answer.code) pending?.reject(new Spr2qError(answer.code, answer.message));
    else pending?.reject(new Error(answer.message));
  }

  #lose(worker: Worker | null, error: Error): void {
    if (worker === null || worker !== this.#worker) return;
    this.#worker = null;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

function died(cause: unknown): Spr2qError {
  const memory = (cause as NodeJS.ErrnoException).code === "ERR_WORKER_OUT_OF_MEMORY";
  const code = memory ? "ERR_OUT_OF_MEMORY" : "ERR_INTERNAL";
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new Spr2qError(code, `The thread that decodes images died: ${reason}`, { cause });
}
