/** Workers and processes that end in the middle of a job, and objects used after their end. */
import { expect, test } from "vitest";
import { resultOf, runScript } from "./child.ts";

test.each(["beside", "alone"])(
  "fifty workers are terminated in the middle of a job (%s)",
  async (how) => {
    const { terminated, width } = await resultOf("terminate.mjs", [how]);
    expect(terminated).toBe(50);
    expect(width).toBe(40);
  },
);

test("process.exit() in the middle of a job ends with its code, fifty times", async () => {
  for (let i = 0; i < 25; i++) {
    const both = await Promise.all([
      runScript("exit.mjs", ["exit"]),
      runScript("exit.mjs", ["exit"]),
    ]);
    for (const { code, signal, stderr } of both) {
      expect({ code, signal, stderr }).toEqual({ code: 7, signal: null, stderr: "" });
    }
  }
});

test("process.exit() in a worker ends the worker alone", async () => {
  const { code, signal, result } = await runScript("exit.mjs", ["worker"]);
  expect({ code, signal, result }).toEqual({ code: 7, signal: null, result: { code: 7 } });
});

test("a process with nothing else to do waits for its job, and no longer", async () => {
  expect(await resultOf("exit.mjs", ["idle"])).toEqual({ width: 400 });
});

test("whatever is used after dispose() is ERR_DISPOSED", async () => {
  const codes = await resultOf("disposed.mjs");
  const names = ["run", "save", "stream", "png", "read", "stats", "share", "model", "scale"];
  const running = ["running 0", "running 1", "running 2", "streamed"];
  const wanted = [...names, ...running].map((name) => [name, "ERR_DISPOSED"]);
  expect(codes).toEqual(Object.fromEntries(wanted));
});

test("two models in eight workers at once give what one thread gives", async () => {
  const { wrong, codes, held, most, different } = await resultOf("workers.mjs");
  expect(wrong).toBe(0);
  expect(codes).toEqual(Array(8).fill(0));
  expect(different).toBe(6);
  expect(most).toBe(held); // no worker holds weights of its own
});
