/**
 * The HTTP server: POST /upscale, GET /models, /health, /metrics, and the page at /. Paths are
 * compared as they stand, nothing is decoded or joined. It listens on loopback unless told otherwise.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { expected, Spr2qError } from "../errors.ts";
import type { UpscalerOptions } from "../infer/settings.ts";
import { Accounts } from "./accounts.ts";
import { bundledModels, Catalogue } from "./catalogue.ts";
import { type Fault, faultBody, faultOf, sendFault, sendJson, sendText } from "./faults.ts";
import { JobQueue } from "./job_queue.ts";
import { DEFAULT_LIMITS, type Limits } from "./limits.ts";
import { checkOrigin } from "./origin.ts";
import { loadPageFiles, PAGE_HEADERS, type PageFile } from "./page_files.ts";
import { clientLeft, type JobNotes, Upscaling } from "./upscaling.ts";

/** What a server is started with. */
export interface ServeOptions {
  /** Model files, each "FILE" or "NAME=FILE", the first the default; none: the bundled ones. */
  readonly models?: readonly string[];
  /** Default "127.0.0.1". */
  readonly host?: string;
  /** Default 8080; 0 takes a free one. */
  readonly port?: number;
  /** Names beside loopback's that requests may call the server, and sites whose pages may use it. */
  readonly allowedHosts?: readonly string[];
  /** How images are run. */
  readonly upscaler?: UpscalerOptions;
  readonly limits?: Partial<Limits>;
  /** Called once per request. Default: nothing is logged. */
  readonly log?: (entry: LogEntry) => void;
}

/** One request in the log. */
export interface LogEntry extends JobNotes {
  readonly method: string;
  readonly path: string;
  /** 0: the client left before the answer was complete. */
  readonly status: number;
  readonly seconds: number;
  /** Code and message where it failed; of a defect, all that is known. */
  readonly error?: string;
}

/** Largest header block of a request, in bytes. */
const HEADER_BYTES = 8192;
/** Milliseconds between looks at connections that are too slow. */
const CHECK_MS = 500;

/** Milliseconds for clients to take the answers of jobs that were stopped at the end. */
const LEAVE_MS = 2_000;

/** A server that runs. */
export class UpscaleServer {
  readonly #server: Server;
  readonly #catalogue: Catalogue;
  readonly #files: ReadonlyMap<string, PageFile>;
  readonly #limits: Limits;
  readonly #options: ServeOptions;
  readonly #queue: JobQueue;
  readonly #accounts = new Accounts();
  readonly #upscaling: Upscaling;
  /** What each request under way is stopped by, and when it is over. */
  readonly #active = new Map<AbortController, Promise<void>>();
  #draining = false;

  private constructor(
    catalogue: Catalogue,
    files: ReadonlyMap<string, PageFile>,
    options: ServeOptions,
  ) {
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#catalogue = catalogue;
    this.#files = files;
    this.#limits = limits;
    this.#options = options;
    this.#queue = new JobQueue(limits.parallel, limits.queue);
    this.#upscaling = new Upscaling(catalogue, this.#queue, this.#accounts, limits);
    this.#server = createServer({
      headersTimeout: limits.headersMs,
      requestTimeout: Math.max(limits.requestMs, limits.headersMs),
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: Math.min(CHECK_MS, limits.headersMs),
      maxHeaderSize: HEADER_BYTES,
    });
    this.#server.maxConnections = limits.connections;
    this.#server.on("request", (req, res) => this.#take(req, res, () => {}));
    this.#server.on("checkContinue", (req, res) => this.#take(req, res, () => res.writeContinue()));
    this.#server.on("clientError", answerBroken);
  }

  /** Opens the models and listens. Throws what the models throw, and ERR_IO for the port. */
  static async start(options: ServeOptions = {}): Promise<UpscaleServer> {
    const models = options.models?.length ? options.models : bundledModels();
    const catalogue = await Catalogue.load(models, options.upscaler ?? {});
    try {
      const scales = [...new Set(catalogue.entries.map((entry) => entry.scale))];
      const server = new UpscaleServer(catalogue, await loadPageFiles(scales), options);
      await server.#listen();
      return server;
    } catch (cause) {
      catalogue.dispose();
      throw cause;
    }
  }

  /** Where it listens, as "http://127.0.0.1:8080". */
  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  }

  /** The models by name. */
  get catalogue(): Catalogue {
    return this.#catalogue;
  }

  /**
   * Ends the server: new images are refused with 503, those under way are finished (and stopped where
   * they take longer than `limits.drainMs`), then connections and models are closed.
   */
  async close(): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    const { drainMs } = this.#limits;
    const stop = setTimeout(() => {
      const reason = new Spr2qError("ERR_ABORTED", "The server ended before the image was done.");
      for (const controller of this.#active.keys()) controller.abort(reason);
    }, drainMs);
    // Stopped jobs answer with 503; clients that do not take their answer are left behind.
    const leave = setTimeout(() => this.#server.closeAllConnections(), drainMs + LEAVE_MS);
    while (this.#active.size > 0) await Promise.allSettled(this.#active.values());
    clearTimeout(stop);
    clearTimeout(leave);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
    await this.#upscaling.close();
    this.#accounts.close();
    this.#catalogue.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #listen(): Promise<void> {
    const { host = "127.0.0.1", port = 8080 } = this.#options;
    return new Promise((resolve, reject) => {
      const fail = (cause: NodeJS.ErrnoException): void => {
        const why = cause.code === "EADDRINUSE" ? "the port is in use" : cause.message;
        const text = `could not listen on ${host}:${port}: ${why} (${cause.code})`;
        reject(new Spr2qError("ERR_IO", text, { cause }));
      };
      this.#server.once("error", fail);
      this.#server.listen(port, host, () => {
        this.#server.off("error", fail);
        resolve();
      });
    });
  }

  /** Answers one request and keeps account of it until the client has the answer, or has left. */
  #take(req: IncomingMessage, res: ServerResponse, goOn: () => void): void {
    const controller = new AbortController();
    const began = performance.now();
    const notes: JobNotes = {};
    const [path, search = ""] = (req.url ?? "/").split("?", 2);
    let error: string | undefined;
    const over = new Promise<void>((resolve) => {
      res.once("close", () => {
        if (!res.writableFinished) controller.abort(clientLeft());
        resolve();
      });
    });
    const work = this.#route(req, res, path, search, controller.signal, goOn, notes).catch(
      (cause: unknown) => {
        const fault = faultOf(cause);
        const defect = fault.status === 500 && cause instanceof Error;
        error = defect ? (cause.stack ?? cause.message) : `${fault.code}: ${fault.message}`;
        sendFault(req, res, fault, this.#faultHeaders(fault));
      },
    );
    const done = Promise.all([work, over]).then(() => {
      this.#active.delete(controller);
      const status = res.writableFinished ? res.statusCode : 0;
      const known = this.#files.has(path) || ROUTES.has(path);
      this.#accounts.requests.add(1, known ? path : "other", status);
      const seconds = (performance.now() - began) / 1000;
      this.#options.log?.({ method: req.method ?? "", path, status, seconds, ...notes, error });
    });
    this.#active.set(controller, done);
  }

  async #route(
    req: IncomingMessage,
    res: ServerResponse,
    path: string,
    search: string,
    signal: AbortSignal,
    goOn: () => void,
    notes: JobNotes,
  ): Promise<void> {
    res.setHeader("X-Content-Type-Options", "nosniff");
    res.setHeader("Cache-Control", "no-store");
    if (this.#draining) res.setHeader("Connection", "close");
    checkOrigin(req, this.#options.host ?? "127.0.0.1", this.#options.allowedHosts ?? []);
    const file = this.#files.get(path);
    const methods = ROUTES.get(path) ?? (file ? READ : null);
    if (methods === null) {
      const known = [...ROUTES.keys()].join(", ");
      throw expected("ERR_NOT_FOUND", "path", `/ or ${known}`, JSON.stringify(path));
    }
    if (!methods.includes(req.method ?? "")) {
      res.setHeader("Allow", methods.join(", "));
      throw expected("ERR_METHOD", path, methods.join(" or "), `${req.method}`);
    }
    if (path === "/upscale") {
      if (this.#draining) throw closing();
      return this.#upscaling.answer(req, res, new URLSearchParams(search), signal, goOn, notes);
    }
    if (file) {
      sendText(res, 200, file.type, file.body, PAGE_HEADERS);
    } else if (path === "/models") {
      sendJson(res, 200, { models: this.#catalogue.facts(), limits: this.#limits });
    } else if (path === "/health") {
      const { running, queued } = this.#queue;
      const status = this.#draining ? "draining" : "ok";
      sendJson(res, this.#draining ? 503 : 200, { status, running, queued });
    } else {
      const type = "text/plain; version=0.0.4; charset=utf-8";
      sendText(res, 200, type, this.#accounts.text(this.#queue, this.#draining));
    }
  }

  /** Retry-After where trying again makes sense. */
  #faultHeaders({ code }: Fault): Record<string, string | number> {
    if (code === "ERR_BUSY") return { "Retry-After": this.#queue.retrySeconds() };
    return code === "ERR_CLOSING" ? { "Retry-After": 1 } : {};
  }
}

const READ = ["GET", "HEAD"];
/** Methods of each path beside the page's files. */
const ROUTES: ReadonlyMap<string, readonly string[]> = new Map([
  ["/upscale", ["POST"]],
  ["/models", READ],
  ["/health", READ],
  ["/metrics", READ],
]);

function closing(): Spr2qError {
  const fix = "Send it to another server, or again when this one is back.";
  return new Spr2qError("ERR_CLOSING", `The server ends and takes no new images. ${fix}`);
}

/** A request that is no HTTP, has too large a head, or did not come in time. */
function answerBroken(cause: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || cause.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const late = cause.code === "ERR_HTTP_REQUEST_TIMEOUT";
  const large = cause.code === "HPE_HEADER_OVERFLOW";
  const [status, words] = late
    ? [408, "Request Timeout"]
    : large
      ? [431, "Request Header Fields Too Large"]
      : [400, "Bad Request"];
  const code = late ? "ERR_TIMEOUT" : large ? "ERR_LIMIT" : "ERR_ARGUMENT";
  const message = late
    ? "The request did not come in time."
    : large
      ? `The request's head has more than ${HEADER_BYTES} bytes.`
      : "The request is no HTTP.";
  const body = faultBody({ status, code, message });
  socket.end(
    `HTTP/1.1 ${status} ${words}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
