/** Many clients at once: order, a full queue, clients that leave, and the end of the server. */
import { describe, expect, test } from "vitest";
import { JobQueue } from "../../lib/serve/job_queue.ts";
import { refusal, refusalOf } from "../io/helpers.ts";
import { dial, fault, health, metric, pixels, png, post, serve, until } from "./helpers.ts";

describe("the queue", () => {
  /** A server of tiles so small that one image takes seconds, and such an image at work. */
  async function occupied(limits: object) {
    const served = await serve({ upscaler: { tile: 16 }, limits });
    const controller = new AbortController();
    const first = post(served.url, png(400), "", { signal: controller.signal }).catch(() => null);
    await until(async () => (await health(served.url)).running === 1);
    return { ...served, controller, first };
  }

  test("beyond its end 429 and Retry-After; then the ones that wait have their turn", async () => {
    const { url, controller } = await occupied({ queue: 1 });
    const second = post(url, png(16));
    await until(async () => (await health(url)).queued === 1);
    const third = await post(url, png(16));
    expect(Number(third.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(await fault(third)).toEqual([429, "ERR_BUSY"]);
    controller.abort();
    expect((await second).status).toBe(200);
  });

  test("a client that leaves stops its job, running or waiting", async () => {
    const { url, controller, log } = await occupied({ queue: 4 });
    const waiting = new AbortController();
    const second = post(url, png(16), "", { signal: waiting.signal }).catch(() => "left");
    await until(async () => (await health(url)).queued === 1);
    waiting.abort();
    expect(await second).toBe("left");
    await until(async () => (await health(url)).queued === 0);
    controller.abort();
    await until(async () => (await health(url)).running === 0);
    const cancelled = 'spr2q_jobs_total{model="tiny",outcome="cancelled"}';
    await until(async () => (await metric(url, cancelled)) === 2);
    expect(log.filter((entry) => entry.path === "/upscale").map((entry) => entry.status)).toEqual([
      0, 0,
    ]);
  });

  test("uploads under way hold no more memory than the queue's files could", async () => {
    const { url } = await serve({ limits: { maxBytes: 100_000, queue: 0, parallel: 1 } });
    const slow = await dial(url);
    slow.socket.write("POST /upscale HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n\r\n");
    slow.socket.write(Buffer.concat([png(200), Buffer.alloc(89_000)]).subarray(0, 80_000));
    await until(async () => {
      const response = await post(url, Buffer.concat([png(8), Buffer.alloc(60_000)]));
      if (response.status === 429) return true;
      await response.arrayBuffer();
      return false;
    });
    slow.socket.destroy();
    await until(async () => (await post(url, Buffer.concat([png(8), Buffer.alloc(60_000)]))).ok);
  });

  test("draining: what runs and waits is finished, new work gets 503, then all is closed", async () => {
    const served = await serve({ upscaler: { tile: 16 } });
    const { url, server } = served;
    const first = post(url, png(200));
    await until(async () => (await health(url)).running === 1);
    const second = post(url, png(16));
    await until(async () => (await health(url)).queued === 1);
    const closed = server.close();
    const late = await post(url, png(16));
    expect(late.headers.get("retry-after")).toBe("1");
    expect(late.headers.get("connection")).toBe("close");
    expect(await fault(late)).toEqual([503, "ERR_CLOSING"]);
    expect((await fetch(`${url}/health`)).status).toBe(503);
    expect((await pixels(await first)).width).toBe(400);
    expect((await pixels(await second)).width).toBe(32);
    await closed;
    await expect(fetch(`${url}/health`)).rejects.toThrow("fetch failed");
  });

  test("draining ends in its time: what takes longer is stopped and says so", async () => {
    const { first, server } = await occupied({ drainMs: 50 });
    await server.close();
    const response = await first;
    // The answer may have begun; then it breaks off.
    if (response?.status === 503) expect(await fault(response)).toEqual([503, "ERR_ABORTED"]);
    else
      await expect(response?.arrayBuffer() ?? Promise.reject(new Error("cut"))).rejects.toThrow();
  });
});

describe("turns", () => {
  const idle = new AbortController().signal;

  test("are taken in order, as many at once as may run", async () => {
    const queue = new JobQueue(2, 3);
    const first = await queue.enter(idle);
    await queue.enter(idle);
    const order: number[] = [];
    const rest = [0, 1, 2].map(async (i) => {
      const end = await queue.enter(idle);
      order.push(i);
      return end;
    });
    expect([queue.running, queue.queued]).toEqual([2, 3]);
    expect(refusal(() => queue.checkRoom())).toContain("ERR_BUSY");
    expect(await refusalOf(queue.enter(idle))).toContain("ERR_BUSY");
    first();
    first(); // a second call gives nobody a second turn
    (await rest[0])();
    (await rest[1])();
    (await rest[2])();
    expect(order).toEqual([0, 1, 2]);
    expect([queue.running, queue.queued]).toEqual([1, 0]);
  });

  test("a place in the queue is given up by its signal, and only its own", async () => {
    const queue = new JobQueue(1, 2);
    const end = await queue.enter(idle);
    const controller = new AbortController();
    const gone = queue.enter(controller.signal);
    const stays = queue.enter(idle);
    controller.abort();
    expect(await refusalOf(gone)).toContain("ERR_ABORTED");
    expect(await refusalOf(queue.enter(AbortSignal.abort()))).toContain("ERR_ABORTED");
    expect(queue.queued).toBe(1);
    end();
    await stays;
    expect([queue.running, queue.queued]).toEqual([1, 0]);
  });

  test("the time to wait grows with the queue", async () => {
    const queue = new JobQueue(1, 5);
    await queue.enter(idle);
    const alone = queue.retrySeconds();
    for (let i = 0; i < 4; i++) void queue.enter(idle);
    expect(queue.retrySeconds()).toBe(5 * alone);
  });
});
