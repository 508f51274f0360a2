/** Memory stays flat, and where there is none, that is a coded error. */
import { expect, test } from "vitest";
import { resultOf } from "./child.ts";

test("500 runs leave resident memory where it was", async () => {
  const { runs, megabytesPerRun, resident } = await resultOf("runs.mjs");
  console.log(`${megabytesPerRun.toFixed(4)} MB a run, ${resident.at(-1).toFixed(0)} MB resident`);
  expect(runs).toBe(500);
  expect(megabytesPerRun).toBeLessThan(0.02);
});

test("50 cycles of load, run and dispose leave nothing", async () => {
  const { megabytesPerCycle, constantBytes, resident } = await resultOf("loads.mjs");
  console.log(
    `${megabytesPerCycle.toFixed(3)} MB a cycle, ${resident.at(-1).toFixed(0)} MB resident`,
  );
  expect(constantBytes).toBe(0);
  expect(megabytesPerCycle).toBeLessThan(0.1);
});

test.skipIf(process.platform !== "linux")(
  "memory that is not there is ERR_OUT_OF_MEMORY",
  async () => {
    const { codes, messages, refused, width } = await resultOf("memory.mjs", [], 6_000_000);
    console.log(messages.join("\n"));
    expect(codes).toEqual(Array(3).fill("ERR_OUT_OF_MEMORY"));
    expect(["finished", "ERR_OUT_OF_MEMORY"]).toContain(refused);
    expect(width).toBe(40);
  },
);

test("the garbage collector is told of a run's memory while it works, and of shared weights", async () => {
  const { before, working, arena, after, bytes, sharing } = await resultOf("reported.mjs");
  expect(arena).toBeGreaterThan(50e6);
  expect(working - before).toBeGreaterThan(0.9 * arena); // threads' scratch is not told
  expect(after - before).toBeLessThan(1e6);
  expect(bytes).toBeGreaterThan(300e3);
  expect(sharing - after).toBeGreaterThanOrEqual(bytes);
});
