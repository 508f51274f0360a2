/** The answer under way: held until the first rows, bounded where a client does not read. */
import { createServer } from "node:http";
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { PngAnswer } from "../../lib/serve/png_answer.ts";
import { refusalOf } from "../io/helpers.ts";
import { dial } from "./helpers.ts";

/** An answer to a client that has sent its request, and the client. */
async function answering(stallMs: number, signal = new AbortController().signal) {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const asked = once(server, "request");
  const client = await dial(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  client.socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const [, res] = await asked;
  const answer = new PngAnswer(res, false, () => ({ "X-Kind": "test" }), stallMs, signal);
  return { res, answer, client };
}

test("a client that stops reading ends with ERR_TIMEOUT, and little is held for it", async () => {
  const { res, answer, client } = await answering(150);
  client.socket.pause();
  const flood = async (): Promise<never> => {
    for (;;) await answer.write(randomBytes(2 ** 20));
  };
  expect(await refusalOf(flood())).toContain("ERR_TIMEOUT");
  expect(res.writableLength).toBeLessThan(20 * 2 ** 20);
});

test("a client that reads on gets all of it, however slowly", async () => {
  const { answer, client } = await answering(5_000);
  client.socket.pause();
  const slow = setInterval(() => client.socket.resume(), 20);
  onTestFinished(() => clearInterval(slow));
  for (let i = 0; i < 24; i++) await answer.write(Buffer.alloc(2 ** 20, i));
  answer.end();
  const text = await client.answer();
  expect(text).toContain("X-Kind: test");
  expect(text.length).toBeGreaterThan(24 * 2 ** 20);
});

test("nothing is sent before the second bytes, so an error before them can be told", async () => {
  const { res, answer } = await answering(1_000);
  await answer.write(Buffer.from("header"));
  expect(res.headersSent).toBe(false);
  await answer.write(Buffer.from("rows"));
  expect(res.headersSent).toBe(true);
});

test("a stopped job writes no more", async () => {
  const controller = new AbortController();
  const { answer } = await answering(1_000, controller.signal);
  controller.abort(new Error("stopped"));
  await expect(answer.write(Buffer.from("x"))).rejects.toThrow("stopped");
});
