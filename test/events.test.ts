/** Work that can be awaited, or gone through event by event. */
import { expect, test } from "vitest";
import { Spr2qError } from "../lib/errors.ts";
import { EventRun } from "../lib/events.ts";

/** Counts to `end`; `log` has what happened. */
async function* counting(end: number, log: string[]): AsyncGenerator<number, string> {
  try {
    for (let i = 1; i <= end; i++) {
      log.push(`made ${i}`);
      yield i;
    }
    if (end > 2) throw new RangeError("too far");
    return `counted to ${end}`;
  } finally {
    log.push("closed");
  }
}

test("nothing is done before it is awaited, and everything then", async () => {
  const log: string[] = [];
  const run = new EventRun(counting(2, log));
  await Promise.resolve();
  expect(log).toEqual([]);
  expect(await run).toBe("counted to 2");
  expect(await run).toBe("counted to 2");
  expect(log).toEqual(["made 1", "made 2", "closed"]);
});

test("events come as they are taken, and the result behind them", async () => {
  const log: string[] = [];
  const run = new EventRun(counting(2, log));
  for await (const event of run) log.push(`saw ${event}`);
  expect(log).toEqual(["made 1", "saw 1", "made 2", "saw 2", "closed"]);
  expect(await run).toBe("counted to 2");
});

test("a reader that leaves closes the work, and the result is ERR_ABORTED", async () => {
  const log: string[] = [];
  const run = new EventRun(counting(2, log));
  for await (const _ of run) break;
  expect(log).toEqual(["made 1", "closed"]);
  await expect((async () => run)()).rejects.toMatchObject({ code: "ERR_ABORTED" });
});

test("an error reaches the reader and whoever awaits", async () => {
  const run = new EventRun(counting(3, []));
  await expect(
    (async () => {
      for await (const _ of run);
    })(),
  ).rejects.toThrow(RangeError);
  await expect((async () => run)()).rejects.toThrow(RangeError);
  await expect((async () => new EventRun(counting(3, [])))()).rejects.toThrow(RangeError);
});

test("a second reader is refused", async () => {
  const run = new EventRun(counting(2, []));
  await run;
  expect(() => run[Symbol.asyncIterator]()).toThrow(Spr2qError);
});
