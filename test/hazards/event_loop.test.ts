/** The event loop turns while images are upscaled, and aborts are heard at once. */
import { expect, test } from "vitest";
import { resultOf } from "./child.ts";

/** Milliseconds by which timers may be late for one in a hundred, on a machine that is idle else. */
const MOST_LATE = 15;
/** What an idle machine's own timers are late by; more is the machine's doing. */
const IDLE = 3;

const show = ({ p50, p99, max }: { p50: number; p99: number; max: number }): string =>
  `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, most ${max.toFixed(1)} ms`;

test("99 of 100 timers are less than 15 ms late during ten seconds of upscaling", async () => {
  const { idle, busy, runs } = await resultOf("loop.mjs");
  console.log(`${runs} runs: ${show(busy)}; idle p99 ${idle.p99.toFixed(1)} ms`);
  expect(runs).toBeGreaterThan(1);
  expect(busy.p99).toBeLessThan(MOST_LATE + Math.max(0, idle.p99 - IDLE));
});

test("nor are those of a server during ten seconds of four clients' pictures", async () => {
  const { idle, busy, answers } = await resultOf("serving.mjs");
  console.log(`${answers} answers: ${show(busy)}; idle p99 ${idle.p99.toFixed(1)} ms`);
  expect(answers).toBeGreaterThan(4);
  expect(busy.p99).toBeLessThan(MOST_LATE + Math.max(0, idle.p99 - IDLE));
});

test("libuv's threads are not the addon's: neither waits for the other", async () => {
  const { models, runsLeft, libuv, hashesLeft, width } = await resultOf("threadpool.mjs");
  expect(models).toBe(2 * libuv);
  expect(runsLeft).toBeGreaterThanOrEqual(models - 1); // a file was read while all worked
  expect(hashesLeft).toBe(libuv); // a run came to its end while all hashed
  expect(width).toBe(40);
});

test("an abort rejects within 100 ms, and the work behind it stops", async () => {
  const { codes, slowest, late, worked, width } = await resultOf("abort.mjs");
  console.log(
    `slowest ${slowest.toFixed(1)} ms (idle, this machine is late by ${late.toFixed(1)} ms at most); ` +
      `${worked.toFixed(0)} ms of work afterwards`,
  );
  expect(codes).toEqual(["ERR_ABORTED"]);
  expect(slowest).toBeLessThan(100 + Math.max(0, late - IDLE));
  expect(worked).toBeLessThan(100); // of 200 ms and more on each thread, had it gone on
  expect(width).toBe(40);
});
