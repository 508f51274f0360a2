/**
 * An upscaling route in a Fastify server. As a program: MODEL=model.safetensors node server.js, then
 *
 *   curl --data-binary @picture.png -H 'Content-Type: image/png' http://127.0.0.1:3000/upscale -o large.png
 */
import { Readable } from "node:stream";
import Fastify from "fastify";
import { decodeImage, outlineBytes, Upscaler } from "spr2q";

/** HTTP status of the errors that a client can mend; the codes are spr2q's. */
const STATUS = { ERR_IMAGE: 400, ERR_NEED_SHARP: 415, ERR_OUT_OF_MEMORY: 413 };

/** An error with a code of its own, which Fastify turns into an answer. */
function refusal(statusCode, code, message) {
  return Object.assign(new Error(message), { statusCode, code });
}

/**
 * A server on one model: files of at most `maxBytes`, images of at most `maxPixels`, at most `maxQueued`
 * of them waiting for their turn. Closing it ends what is under way first.
 */
export async function buildServer({
  model,
  maxBytes = 16 * 2 ** 20,
  maxPixels = 4e6,
  maxQueued = 8,
  upscaler: options = {},
  ...fastifyOptions
}) {
  const upscaler = await Upscaler.load(model, options);
  const server = Fastify({ bodyLimit: maxBytes, requestTimeout: 30_000, ...fastifyOptions });
  server.addHook("onClose", () => upscaler.dispose());

  // The body as it is; Fastify stops reading at bodyLimit and answers 413.
  const types = ["image/png", "image/jpeg", "image/webp", "image/avif"];
  server.addContentTypeParser(types, { parseAs: "buffer" }, (_request, body, done) =>
    done(null, body),
  );

  server.post("/upscale", async (request, reply) => {
    if (upscaler.stats().queued >= maxQueued) {
      reply.header("Retry-After", 1);
      throw refusal(429, "ERR_BUSY", `at most ${maxQueued} images may wait; try again`);
    }
    if (!Buffer.isBuffer(request.body)) throw refusal(400, "ERR_IMAGE", "the request has no image");
    // By the header alone: a small file may hold an enormous picture.
    const { width, height } = await outlineBytes(request.body, "image");
    if (width * height > maxPixels) {
      throw refusal(413, "ERR_IMAGE", `at most ${maxPixels} pixels, got ${width}x${height}`);
    }

    // A client that leaves before it has everything stops the work.
    const controller = new AbortController();
    reply.raw.once("close", () => {
      if (!reply.raw.writableFinished) controller.abort();
    });

    const image = await decodeImage(request.body, "image");
    // The first bytes are awaited, so that what fails before them is answered as an error; the rest
    // is sent as it is made, no faster than the client reads.
    const png = upscaler.png(image, { signal: controller.signal });
    const first = [await png.next(), await png.next()].filter(({ done }) => !done);
    async function* bytes() {
      for (const { value } of first) yield value;
      yield* png;
    }
    return reply.type("image/png").send(Readable.from(bytes(), { objectMode: false }));
  });

  server.get("/health", () => upscaler.stats());

  server.setErrorHandler((error, _request, reply) => {
    const status = error.statusCode ?? STATUS[error.code] ?? 500;
    if (status >= 500) server.log.error(error);
    const message = status < 500 ? error.message : "the server failed; its log says how";
    return reply.status(status).send({ error: { code: error.code ?? "ERR_INTERNAL", message } });
  });
  return server;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const server = await buildServer({ model: process.env.MODEL ?? "", logger: true });
  await server.listen({ host: "127.0.0.1", port: Number(process.env.PORT ?? 3000) });
  process.once("SIGTERM", () => server.close());
}
