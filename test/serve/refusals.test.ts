/** What the server refuses: each with its status and code, and before any work is spent on it. */
import { request } from "node:http";
import { describe, expect, test } from "vitest";
import { encodePng } from "../../lib/io/png.ts";
import { UpscaleServer } from "../../lib/serve/server.ts";
import { picture } from "../cli/tiny_model.ts";
import { refusalOf } from "../io/helpers.ts";
import { headerChunk, SIGNATURE } from "../io/make_png.ts";
import { dial, fault, metric, png, post, serve, until } from "./helpers.ts";

describe("what is refused", () => {
  test("bytes: by the declared length without reading, and as they come without one", async () => {
    const { url } = await serve({ limits: { maxBytes: 1000 } });
    const declared = await dial(url);
    declared.socket.write(
      "POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n",
    );
    expect(await declared.answer()).toMatch(/^HTTP\/1.1 413 .*ERR_LIMIT.*at most 1000 bytes/s);
    const chunked = await dial(url);
    chunked.socket.write(
      "POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    chunked.socket.write(`400\r\n${"x".repeat(1024)}\r\n`);
    expect(await chunked.answer()).toMatch(/^HTTP\/1.1 (400|413) /);
    expect(await metric(url, "spr2q_received_bytes_total")).toBe(0);
  });

  test("pixels: by the header, before the file has come, however small it is packed", async () => {
    const { url } = await serve({ limits: { maxPixels: 1000 } });
    const head = Buffer.concat([
      SIGNATURE,
      headerChunk({ width: 60_000, height: 60_000, bitDepth: 8, colorType: 2 }),
    ]);
    const { socket, answer } = await dial(url);
    socket.write("POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n");
    socket.write(head);
    expect(await answer()).toMatch(/^HTTP\/1.1 413 .*ERR_LIMIT.*60000x60000/s);
    expect(await fault(await post(url, png(32)))).toEqual([413, "ERR_LIMIT"]);
    expect((await post(url, png(31))).status).toBe(200);
  });

  test("a client that asks for leave first is refused before it sends anything", async () => {
    const { url } = await serve({ limits: { maxBytes: 1000 } });
    const { hostname, port } = new URL(url);
    const ask = (length: number) =>
      new Promise<string>((resolve, reject) => {
        const headers = { Expect: "100-continue", "Content-Length": length };
        const req = request({ hostname, port, path: "/upscale", method: "POST", headers });
        req.on("continue", () => {
          resolve("go on");
          req.destroy();
        });
        req.on("response", (res) => resolve(String(res.statusCode)));
        req.on("error", reject);
        req.flushHeaders();
      });
    expect(await ask(2000)).toBe("413");
    expect(await ask(500)).toBe("go on");
  });

  test("what is no image, damaged, empty, a form or packed, each with its code", async () => {
    const { url } = await serve();
    const answers = await Promise.all([
      post(url, "hello"),
      post(url, png(20).slice(0, 200)),
      post(url, ""),
      post(url, new Uint8Array(SIGNATURE)),
      post(url, encodePng(picture(9, 1))),
      post(url, new FormData()),
      post(url, png(8), "", { headers: { "Content-Encoding": "gzip" } }),
      post(url, png(8), "?tile=none"),
      post(url, png(8), "?seed=-1"),
      post(url, png(8), "?seed=1&seed=2"),
    ]);
    const codes = await Promise.all(answers.map(fault));
    expect(codes.slice(0, 5)).toEqual(codes.slice(0, 5).map(() => [400, "ERR_IMAGE"]));
    expect(codes.slice(5)).toEqual(codes.slice(5).map(() => [400, "ERR_ARGUMENT"]));
    expect((await post(url, png(8))).status).toBe(200);
  });

  test("unknown paths, models and methods; no path reaches the disk", async () => {
    const { url } = await serve();
    expect(await fault(await fetch(`${url}/nothing`))).toEqual([404, "ERR_NOT_FOUND"]);
    expect(await fault(await post(url, png(8), "?model=other"))).toEqual([404, "ERR_NOT_FOUND"]);
    const got = await fetch(`${url}/upscale`);
    expect(got.headers.get("allow")).toBe("POST");
    expect(await fault(got)).toEqual([405, "ERR_METHOD"]);
    for (const path of [
      "/../package.json",
      "/samples/../../package.json",
      "/%2e%2e/package.json",
      "/samples/..%2f..%2fpackage.json",
      "//etc/passwd",
      "/page.css/../../model/mambairv2-light-x2.safetensors",
      "/samples/harbour.png%00.css",
      "/__proto__",
      "/constructor",
    ]) {
      const { socket, answer } = await dial(url);
      socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`);
      expect(await answer(), path).toMatch(/^HTTP\/1.1 404 .*ERR_NOT_FOUND/s);
    }
  });

  test("a page of another site, and another name for loopback, unless they are allowed", async () => {
    const ask = async (url: string, headers: string) => {
      const { socket, answer } = await dial(url);
      socket.write(`GET /health HTTP/1.1\r\n${headers}\r\nConnection: close\r\n\r\n`);
      return (await answer()).slice(9, 12);
    };
    const { url } = await serve();
    const { host } = new URL(url);
    expect(await ask(url, `Host: ${host}\r\nOrigin: http://${host}`)).toBe("200");
    expect(await ask(url, `Host: ${host}\r\nOrigin: https://evil.example`)).toBe("403");
    expect(await ask(url, `Host: ${host}\r\nOrigin: null`)).toBe("403");
    expect(await ask(url, "Host: evil.example")).toBe("403");
    const friendly = await serve({ allowedHosts: ["sr.example"] });
    expect(await ask(friendly.url, "Host: sr.example\r\nOrigin: https://sr.example")).toBe("200");
  });

  test("what needs more memory than --max-memory, in words", async () => {
    const { url } = await serve({ upscaler: { maxMemory: 20 * 2 ** 20 } });
    expect(await fault(await post(url, png(100)))).toEqual([413, "ERR_OUT_OF_MEMORY"]);
  });

  test("models that share a name, and a port in use", async () => {
    const { model, url } = await serve();
    const twice = UpscaleServer.start({ models: [model, model], port: 0 });
    expect(await refusalOf(twice)).toMatch(/ERR_ARGUMENT.*tiny twice.*NAME=FILE/);
    const busy = UpscaleServer.start({ models: [model], port: Number(new URL(url).port) });
    expect(await refusalOf(busy)).toMatch(/ERR_IO.*port is in use/);
  });
});

describe("slow clients", () => {
  test("half a head, and half a body, end with 408 in time", async () => {
    const { url } = await serve({ limits: { headersMs: 500, requestMs: 1500 } });
    const head = await dial(url);
    head.socket.write("POST /upscale HTTP/1.1\r\nHost: 127");
    const body = await dial(url);
    body.socket.write("POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n");
    body.socket.write(png(20).slice(0, 60));
    expect(await head.answer()).toMatch(/^HTTP\/1.1 408 .*ERR_TIMEOUT/s);
    expect(await body.answer()).toMatch(/^HTTP\/1.1 408 .*ERR_TIMEOUT/s);
    expect((await post(url, png(8))).status).toBe(200);
  });

  test("a head without end is 431, what is no HTTP 400", async () => {
    const { url } = await serve();
    const large = await dial(url);
    large.socket.write(`GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${"x".repeat(20_000)}\r\n\r\n`);
    expect(await large.answer()).toMatch(/^HTTP\/1.1 431 .*ERR_LIMIT/s);
    const strange = await dial(url);
    strange.socket.write("hello\r\n\r\n");
    expect(await strange.answer()).toMatch(/^HTTP\/1.1 400 .*ERR_ARGUMENT/s);
  });

  test("a connection left idle after its answer is closed", async () => {
    const { url } = await serve({ limits: { keepAliveMs: 50 } });
    const { socket, answer } = await dial(url);
    const file = png(8);
    socket.write(
      `POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${file.length}\r\n\r\n`,
    );
    socket.write(file);
    expect(await answer()).toMatch(/^HTTP\/1.1 200 /);
  });

  test("one that does not read its answer holds up nobody", async () => {
    const { url } = await serve();
    const { socket } = await dial(url);
    socket.pause();
    const file = png(200);
    socket.write(
      `POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${file.length}\r\n\r\n`,
    );
    socket.write(file);
    await until(
      async () => (await metric(url, 'spr2q_jobs_total{model="tiny",outcome="done"}')) === 1,
    );
    expect((await post(url, png(16))).status).toBe(200);
  });
});
