import { describe, expect, test } from "vitest";
import { formatDuration, formatRate, ProgressLine } from "../../lib/cli/progress.ts";

function setup(isTty: boolean, columns = 80) {
  const screen = { text: "", time: 0 };
  const line = new ProgressLine({
    write: (text) => {
      screen.text += text;
    },
    isTty,
    columns,
    quiet: false,
    now: () => screen.time,
  });
  return { screen, line };
}

describe("without a terminal", () => {
  test("a line about every ten seconds, with rate and time left, and one at the end", () => {
    const { screen, line } = setup(false);
    for (let done = 0; done <= 30; done++) {
      screen.time = done * 1000;
      line.update({ label: "rgt", done, total: 30, unit: "iterations", note: "loss 0.1" });
    }
    line.finish();
    expect(screen.text.split("\n")).toEqual([
      "rgt 10/30 (33 %), 1.0 iterations/s, 20 s left, loss 0.1",
      "rgt 20/30 (66 %), 1.0 iterations/s, 10 s left, loss 0.1",
      "rgt 30/30 (100 %), 1.0 iterations/s, loss 0.1",
      "",
    ]);
  });

  test("another label ends the old piece of work and starts the speed anew", () => {
    const { screen, line } = setup(false);
    line.update({ label: "a", done: 0, total: 5, unit: "steps" });
    screen.time = 5000;
    line.update({ label: "a", done: 5, total: 5, unit: "steps" });
    line.update({ label: "b", done: 0, total: 2, unit: "steps" });
    expect(screen.text).toBe("a 5/5 (100 %), 1.0 steps/s\n");
    screen.time = 25000;
    line.update({ label: "b", done: 1, total: 2, unit: "steps" });
    expect(screen.text).toContain("b 1/2 (50 %), 20.0 s per step, 20 s left\n");
  });

  test("finish without work writes nothing", () => {
    const { screen, line } = setup(false);
    line.finish();
    line.clear();
    expect(screen.text).toBe("");
  });
});

describe("on a terminal", () => {
  test("the line is redrawn in place at most ten times a second", () => {
    const { screen, line } = setup(true);
    for (let i = 0; i < 1000; i++) {
      screen.time = i;
      line.update({ label: "step", done: i });
    }
    expect(screen.text.split("\r").length - 1).toBe(10);
    expect(screen.text).not.toContain("\n");
    line.finish();
    expect(screen.text.endsWith("step 999\n")).toBe(true);
  });

  test("the line never fills the last column", () => {
    const { screen, line } = setup(true, 12);
    line.update({ label: "a very long label", done: 1, total: 2 });
    expect(screen.text).toBe("\r\x1b[Ka very long");
  });
});

test("recent speed counts, not the slow beginning", () => {
  const { screen, line } = setup(true);
  line.update({ label: "s", done: 0, total: 1e6, unit: "steps" });
  screen.time = 100_000;
  line.update({ label: "s", done: 1, total: 1e6, unit: "steps" });
  for (let i = 1; i <= 40; i++) {
    screen.time = 100_000 + i * 1000;
    line.update({ label: "s", done: 1 + 10 * i, total: 1e6, unit: "steps" });
  }
  expect(screen.text.split("\r").at(-1)).toContain("10.0 steps/s");
});

test("durations and rates read naturally", () => {
  expect([0.4, 59.4, 185, 7630].map(formatDuration)).toEqual([
    "0 s",
    "59 s",
    "3 min 05 s",
    "2 h 07 min",
  ]);
  expect(formatRate(250.4, "tiles")).toBe("250 tiles/s");
  expect(formatRate(0.25, "images")).toBe("4.0 s per image");
});
