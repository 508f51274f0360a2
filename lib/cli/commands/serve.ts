/**
 * `spr2q serve`: models behind HTTP until Ctrl-C or SIGTERM, which lets the images under way finish
 * and then ends with 0.
 */
import { DEFAULT_LIMITS } from "../../serve/limits.ts";
import { isLoopback } from "../../serve/origin.ts";
import { type LogEntry, UpscaleServer } from "../../serve/server.ts";
import { defineCommand } from "../args.ts";
import { parseTile, routingOptions } from "../run_options.ts";

/** One line of the log: what was asked, the outcome, and where the time went. */
function logLine(entry: LogEntry): string {
  const { method, path, status, seconds, model, width, height, wait, run, error } = entry;
  const parts = [`${method} ${path}`, status === 0 ? "client left" : `${status}`];
  if (model !== undefined) parts.push(model);
  if (width !== undefined) parts.push(`${width}x${height}`);
  parts.push(`${seconds.toFixed(3)} s`);
  if (wait !== undefined) parts.push(`(wait ${wait.toFixed(3)}, run ${(run ?? 0).toFixed(3)})`);
  if (error !== undefined) parts.push(error);
  return parts.join("  ");
}

export const command = defineCommand({
  name: "serve",
  summary: "enlarge images over HTTP, with a page that compares models",
  usage: "[--model [NAME=]FILE]… [--port N]",
  options: [
    {
      name: "model",
      type: "string",
      multiple: true,
      value: "[NAME=]FILE",
      help: "model file, the first is the default; more than once; none: the bundled models",
    },
    {
      name: "port",
      type: "integer",
      min: 0,
      max: 65535,
      default: 8080,
      help: "0 takes a free one",
    },
    {
      name: "host",
      type: "string",
      default: "127.0.0.1",
      value: "ADDRESS",
      help: "address to listen on; the default is seen by this machine only",
    },
    {
      name: "allow-host",
      type: "string",
      multiple: true,
      value: "NAME",
      help: "other name of this server, or site whose pages may use it; more than once",
    },
    {
      name: "max-bytes",
      type: "size",
      default: DEFAULT_LIMITS.maxBytes,
      help: "largest file taken",
    },
    {
      name: "max-pixels",
      type: "integer",
      min: 1,
      max: 2 ** 28,
      default: DEFAULT_LIMITS.maxPixels,
      help: "largest image taken, by its header",
    },
    {
      name: "queue",
      type: "integer",
      min: 0,
      max: 10_000,
      default: DEFAULT_LIMITS.queue,
      help: "images that may wait; more are refused with 429",
    },
    {
      name: "parallel",
      type: "integer",
      min: 1,
      max: 64,
      default: DEFAULT_LIMITS.parallel,
      help: "images at work at once; each uses all threads",
    },
    {
      name: "drain",
      type: "number",
      min: 0,
      max: 3600,
      default: DEFAULT_LIMITS.drainMs / 1000,
      help: "seconds for images under way once the server is told to end",
    },
    {
      name: "tile",
      type: "string",
      default: "auto",
      value: "T",
      help: "as for upscale",
    },
    { name: "max-memory", type: "size", help: "most that an image may take beside the model" },
    ...routingOptions,
  ],
  async run(ctx) {
    const { options, signal } = ctx;
    const { routing, seed } = options as { routing: "sampled" | "argmax"; seed: number };
    let requests = 0;
    await using server = await UpscaleServer.start({
      models: options.model,
      host: options.host,
      port: options.port,
      allowedHosts: options["allow-host"],
      upscaler: {
        tile: parseTile(options.tile),
        maxMemory: options["max-memory"],
        routing,
        seed,
      },
      limits: {
        maxBytes: options["max-bytes"],
        maxPixels: options["max-pixels"],
        queue: options.queue,
        parallel: options.parallel,
        drainMs: options.drain * 1000,
      },
      log: (entry) => {
        requests++;
        ctx.out(logLine(entry));
      },
    });
    const { url } = server;
    for (const { name, scale, bits, bytes } of server.catalogue.facts()) {
      const size = bytes === null ? "" : `  ${(bytes / 1024).toFixed(0)} KiB`;
      ctx.out(`model ${name}  x${scale}  ${bits === null ? "" : `${bits} bit`}${size}`);
    }
    if (!isLoopback(options.host)) {
      ctx.out(`${options.host} is seen by other machines; the server has no passwords.`);
    }
    ctx.out(`listening on ${url}`);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await server.close();
    ctx.result({ url, requests });
  },
});
