import { describe, expect, test } from "vitest";
import { heatMap } from "../../lib/report/heat.ts";
import {
  escapeHtml,
  linearTicks,
  linePlot,
  logTicks,
  runningMean,
  tickLabel,
} from "../../lib/report/svg.ts";

const plot = (x: number[], y: number[], more = {}) =>
  linePlot({ title: "t", x, series: [{ label: "s", y }], xLabel: "x", yLabel: "y", ...more });

/** Points "x y" of the first line's path. */
function points(svg: string): number[][] {
  const path = /class="line s0" d="([^"]*)"/.exec(svg)?.[1] ?? "";
  return path
    .split(/[ML]/)
    .filter(Boolean)
    .map((p) => p.split(" ").map(Number));
}

describe("ticks", () => {
  test("linear ticks are round numbers inside the range", () => {
    expect(linearTicks(0, 1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(linearTicks(31.2, 31.9, 4)).toEqual([31.2, 31.4, 31.6, 31.8]);
    expect(linearTicks(-7, 7, 3)).toEqual([-5, 0, 5]);
  });

  test("logarithmic ticks are powers of ten, and 2 and 5 times them in a short range", () => {
    expect(logTicks(0.001, 10)).toEqual([0.001, 0.01, 0.1, 1, 10]);
    expect(logTicks(0.03, 0.6)).toEqual([0.05, 0.1, 0.2, 0.5]);
    expect(logTicks(1e-12, 1).length).toBeLessThanOrEqual(7);
  });

  test("tick labels stay short", () => {
    expect([0, 0.05, 12000, 3e-7, 31.25, -2e6].map(tickLabel)).toEqual([
      "0",
      "0.05",
      "12k",
      "3e-7",
      "31.25",
      "-2e6",
    ]);
  });
});

describe("line plot", () => {
  test("greater values lie higher, later ones further right", () => {
    const line = points(plot([0, 1, 2], [5, 7, 6]));
    const [first, peak, last] = [line[0], line[2], line[3]];
    expect(first[0]).toBeLessThan(peak[0]);
    expect(peak[1]).toBeLessThan(last[1]);
    expect(last[1]).toBeLessThan(first[1]);
  });

  test("a logarithmic axis puts equal factors at equal distances", () => {
    const line = points(plot([0, 1, 2], [0.01, 0.1, 1], { logY: true })).slice(1);
    expect(line[0][1] - line[1][1]).toBeCloseTo(line[1][1] - line[2][1], 0);
  });

  test("values that cannot be drawn leave a gap", () => {
    const moves = (svg: string) =>
      /class="line s0" d="([^"]*)"/.exec(svg)![1].split("M").length - 1;
    expect(moves(plot([0, 1, 2, 3], [1, Number.NaN, 2, 3]))).toBe(2);
    expect(moves(plot([0, 1, 2, 3], [1, 0, 2, 3], { logY: true }))).toBe(2);
    expect(plot([0, 1], [Number.NaN, Infinity])).toContain("No values");
    expect(plot([], [])).toContain("No values");
  });

  test("constant and single values are drawn with finite coordinates", () => {
    for (const svg of [plot([3], [0]), plot([0, 1], [5, 5]), plot([1], [2], { logY: true })]) {
      expect(svg).not.toMatch(/NaN|Infinity/);
      expect(points(svg).length).toBeGreaterThan(0);
    }
  });

  test("a long noisy line is thinned but keeps its extremes, with its mean on top", () => {
    const y = Array.from({ length: 20000 }, (_, i) => (i === 7777 ? 100 : Math.sin(i)));
    const svg = plot(
      y.map((_, i) => i),
      y,
    );
    expect(svg.length).toBeLessThan(100_000);
    const raw = /class="raw s0" d="([^"]*)"/.exec(svg)![1];
    const heights = raw
      .split(/[ML]/)
      .filter(Boolean)
      .map((p) => Number(p.split(" ")[1]));
    const sorted = [...heights].sort((a, b) => a - b);
    expect(sorted[0]).toBeLessThan(sorted[2] - 100);
  });

  test("a series of another length than x is refused with ERR_ARGUMENT", () => {
    expect(() => plot([1, 2, 3], [1, 2])).toThrow(
      expect.objectContaining({
        code: "ERR_ARGUMENT",
        message: expect.stringContaining("3 values"),
      }),
    );
  });

  test("the running mean leaves out what is not finite", () => {
    expect(runningMean([1, Number.NaN, 3, 5], 1)).toEqual([1, 2, 4, 4]);
  });
});

describe("heat map", () => {
  const map = { title: "r", rows: ["a", "b"], columns: ["1", "2"] };

  test("a greater weight is more opaque, out-of-range weights are limited", () => {
    const svg = heatMap({
      ...map,
      values: [
        [0, 0.5],
        [1, 7],
      ],
    });
    const opacity = [...svg.matchAll(/fill-opacity="([\d.]+)"/g)].map((m) => Number(m[1]));
    expect(opacity[0]).toBeLessThan(opacity[1]);
    expect(opacity[1]).toBeLessThan(opacity[2]);
    expect(opacity[3]).toBe(1);
  });

  test("a missing weight is shown as a dash", () => {
    expect(
      heatMap({
        ...map,
        values: [
          [0, Number.NaN],
          [1, 0],
        ],
      }),
    ).toContain(">–</text>");
  });

  test("values that do not fit the labels are refused with ERR_ARGUMENT", () => {
    const error = expect.objectContaining({ code: "ERR_ARGUMENT" });
    expect(() => heatMap({ ...map, values: [[0, 1]] })).toThrow(error);
    expect(() => heatMap({ ...map, values: [[0, 1], [1]] })).toThrow(error);
  });
});

test("escaped text cannot leave an element or an attribute", () => {
  expect(escapeHtml(`<a b="c" d='e'>&`)).toBe("&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
});
