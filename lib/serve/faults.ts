/** Errors as HTTP answers: a status by the error's code, and a body of JSON {"error":{code,message}}. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { type ErrorCode, Spr2qError } from "../errors.ts";

/** Status of each code that a request can lead to; all others are the server's own fault, 500. */
const STATUS: { readonly [code in ErrorCode]?: number } = {
  ERR_ARGUMENT: 400,
  ERR_IMAGE: 400,
  ERR_FORBIDDEN: 403,
  ERR_NOT_FOUND: 404,
  ERR_METHOD: 405,
  ERR_TIMEOUT: 408,
  ERR_LIMIT: 413,
  ERR_OUT_OF_MEMORY: 413,
  ERR_NEED_SHARP: 415,
  ERR_BUSY: 429,
  ERR_CLOSING: 503,
  ERR_ABORTED: 503,
};

/** Milliseconds for a client to end a request that was refused before all of it came. */
const LINGER_MS = 1_000;

/** An error as a client sees it. */
export interface Fault {
  readonly status: number;
  readonly code: ErrorCode;
  readonly message: string;
}

/** Status, code and message of anything thrown; of what is no Spr2qError, clients learn no detail. */
export function faultOf(error: unknown): Fault {
  if (!(error instanceof Spr2qError)) {
    const message = "The server failed; its log says how.";
    return { status: 500, code: "ERR_INTERNAL", message };
  }
  return { status: STATUS[error.code] ?? 500, code: error.code, message: error.message };
}

/** The answer's body. */
export function faultBody({ code, message }: Fault): string {
  return `${JSON.stringify({ error: { code, message } })}\n`;
}

/** Answers with a text as a whole. */
export function sendText(
  res: ServerResponse,
  status: number,
  type: string,
  body: string | Uint8Array,
  headers: Readonly<Record<string, string | number>> = {},
): void {
  const sizes = { "Content-Type": type, "Content-Length": Buffer.byteLength(body) };
  res.writeHead(status, { ...headers, ...sizes });
  res.end(body);
}

const JSON_TYPE = "application/json; charset=utf-8";

/** Answers with JSON. */
export function sendJson(res: ServerResponse, status: number, value: object): void {
  sendText(res, status, JSON_TYPE, `${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Answers with an error. Once the answer has begun, all that is left is to break it off, so that the
 * client does not take half a picture for a whole one. What the client still sends of its request is
 * dropped, and after a moment the connection with it: closing at once would lose the answer.
 */
export function sendFault(
  req: IncomingMessage,
  res: ServerResponse,
  fault: Fault,
  headers: Readonly<Record<string, string | number>> = {},
): void {
  if (res.destroyed || res.writableEnded) return;
  if (res.headersSent) {
    res.destroy();
    return;
  }
  sendText(res, fault.status, JSON_TYPE, faultBody(fault), headers);
  if (req.complete) return;
  req.resume();
  const timer = setTimeout(() => req.socket.destroy(), LINGER_MS);
  req.once("end", () => clearTimeout(timer));
  req.once("close", () => clearTimeout(timer));
}
