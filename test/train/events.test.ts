import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { JsonLines, readEvents, type Stage, type TrainEvent } from "../../lib/train/events.ts";

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "spr2q-log-"));
  path = join(folder, "log.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true }));

const start: TrainEvent = {
  type: "start",
  command: "spr2q quantize",
  seed: 1,
  settings: { bits: 2 },
};
const done: TrainEvent = { type: "done", seconds: 9, summary: { psnr: 31 } };
const step = (stage: Stage, iteration: number): TrainEvent => ({
  type: "step",
  stage,
  iteration,
  iterations: 10,
  loss: 0.3,
  pixel: 0.1,
  feature: 0.2,
  rate: 1e-2,
  secondsLeft: 5,
});

/** A whole run: 3 steps of each stage. */
const run: TrainEvent[] = [
  start,
  { type: "stage", stage: "rgt", iterations: 3 },
  step("rgt", 1),
  step("rgt", 2),
  { type: "checkpoint", stage: "rgt", iteration: 2, file: "checkpoint" },
  step("rgt", 3),
  { type: "stage", stage: "osrc", iterations: 3 },
  step("osrc", 1),
  { type: "eval", stage: "osrc", iteration: 1, psnr: 30.9 },
  step("osrc", 2),
  step("osrc", 3),
  done,
];

function writeAll(events: readonly TrainEvent[], log: JsonLines) {
  for (const event of events) log.write(event);
  log.close();
}

describe("log", () => {
  test("events come back in the order in which they were written, one line each", () => {
    writeAll(run, JsonLines.open(path));
    expect(readEvents(path)).toEqual(run);
    expect(readFileSync(path, "utf8").split("\n").length).toBe(run.length + 1);
  });

  test("a new run empties an old log", () => {
    writeAll(run, JsonLines.open(path));
    writeAll([start], JsonLines.open(path));
    expect(readEvents(path)).toEqual([start]);
  });

  test.each([
    [{ stage: "rgt", iteration: 2 } as const, 5],
    [{ stage: "rgt", iteration: 3 } as const, 6],
    [{ stage: "osrc", iteration: 0 } as const, 7],
    [{ stage: "osrc", iteration: 1 } as const, 9],
    [{ stage: "osrc", iteration: 3 } as const, 11],
    [{ stage: "rgt", iteration: 0 } as const, 2],
  ])("a run resumed at %j keeps what was said up to there and goes on", (position, kept) => {
    writeAll(run, JsonLines.open(path));
    writeAll(run.slice(kept), JsonLines.open(path, position));
    expect(readEvents(path)).toEqual(run);
  });

  test("a resumed run that stops again is cut at the second checkpoint, its notes of resuming stay", () => {
    const again: TrainEvent = { ...start, resumedFrom: { stage: "rgt", iteration: 2 } };
    writeAll(run.slice(0, 6), JsonLines.open(path));
    writeAll([again, step("rgt", 3)], JsonLines.open(path, { stage: "rgt", iteration: 2 }));
    writeAll([done], JsonLines.open(path, { stage: "rgt", iteration: 3 }));
    expect(readEvents(path)).toEqual([...run.slice(0, 5), again, step("rgt", 3), done]);
  });

  test.each(['{"type":"step","sta', "\u0000\u0000\u0000\n", '"text"\n'])(
    "a torn or foreign end %j is passed over on reading and cut on resuming",
    (end) => {
      writeAll(run.slice(0, 4), JsonLines.open(path));
      appendFileSync(path, end);
      expect(readEvents(path)).toEqual(run.slice(0, 4));
      writeAll([step("rgt", 3)], JsonLines.open(path, { stage: "rgt", iteration: 2 }));
      expect(readEvents(path)).toEqual([...run.slice(0, 4), step("rgt", 3)]);
    },
  );

  test("letters of several bytes do not move the cut", () => {
    const named: TrainEvent = { ...start, command: "spr2q quantize --train Bücher/画像" };
    writeAll([named, step("rgt", 1), step("rgt", 2)], JsonLines.open(path));
    JsonLines.open(path, { stage: "rgt", iteration: 1 }).close();
    expect(readEvents(path)).toEqual([named, step("rgt", 1)]);
  });

  test("resuming without a log starts one", () => {
    writeAll([start], JsonLines.open(path, { stage: "train", iteration: 7 }));
    expect(readEvents(path)).toEqual([start]);
    expect(readEvents(join(folder, "none.jsonl"))).toEqual([]);
  });

  test("a path that cannot be written gives ERR_IO, a closed log ERR_DISPOSED", () => {
    const io = expect.objectContaining({ code: "ERR_IO" });
    expect(() => JsonLines.open(join(folder, "no", "log.jsonl"))).toThrow(io);
    expect(() => readEvents(folder)).toThrow(io);
    writeFileSync(path, "");
    const log = JsonLines.open(path);
    log.close();
    log.close();
    expect(() => log.write(start)).toThrow(expect.objectContaining({ code: "ERR_DISPOSED" }));
  });
});
