/** Servers on a free port of loopback, and clients that do what browsers would not. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { onTestFinished } from "vitest";
import { decodePng, encodePng, type RasterImage } from "../../lib/io/png.ts";
import { type LogEntry, type ServeOptions, UpscaleServer } from "../../lib/serve/server.ts";
import { picture, writeTinyModel } from "../cli/tiny_model.ts";
import { temporaryFolder } from "../io/helpers.ts";

/** A server and what it logged. */
export interface Served {
  readonly server: UpscaleServer;
  readonly url: string;
  readonly model: string;
  readonly log: LogEntry[];
}

/** Starts a server on one small network (`model`), which ends with the test. */
export async function serve(options: ServeOptions = {}): Promise<Served> {
  const model = await writeTinyModel(temporaryFolder());
  const log: LogEntry[] = [];
  const server = await UpscaleServer.start({
    models: [model],
    port: 0,
    log: (entry) => log.push(entry),
    ...options,
  });
  onTestFinished(() => server.close());
  return { server, url: server.url, model, log };
}

/** A PNG of `side` x `side` pixels; with tiles of 16 a side of 400 takes seconds. */
export const png = (side: number): Uint8Array => encodePng(picture(side, side));

/** Sends an image. */
export function post(
  url: string,
  body: BodyInit,
  query = "",
  init: RequestInit = {},
): Promise<Response> {
  return fetch(`${url}/upscale${query}`, { method: "POST", body, ...init });
}

/** The picture in an answer. */
export async function pixels(response: Response): Promise<RasterImage> {
  return decodePng(new Uint8Array(await response.arrayBuffer()), "answer");
}

/** Waits until `check` holds; the test's own time limit ends what never does. */
export async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Running and waiting jobs as GET /health says. */
export async function health(url: string): Promise<{ running: number; queued: number }> {
  return (await fetch(`${url}/health`)).json() as Promise<{ running: number; queued: number }>;
}

/** Error code and status of an answer. */
export async function fault(response: Response): Promise<[number, string]> {
  const { error } = (await response.json()) as { error: { code: string } };
  return [response.status, error.code];
}

/** One value of GET /metrics, 0 where the line is missing. */
export async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((row) => row.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1) ?? 0);
}

/** A connection on which bytes are written by hand. */
export async function dial(
  url: string,
): Promise<{ socket: Socket; answer: () => Promise<string> }> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let text = "";
  socket.on("data", (bytes) => {
    text += bytes.toString("latin1");
  });
  socket.on("error", () => {});
  await once(socket, "connect");
  onTestFinished(() => void socket.destroy());
  const answer = async (): Promise<string> => {
    if (!socket.closed) await once(socket, "close");
    return text;
  };
  return { socket, answer };
}
