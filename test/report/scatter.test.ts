/** Scatter plots: where points land, and what is left out. */
import { expect, test } from "vitest";
import { type Scatter, scatterPlot } from "../../lib/report/scatter.ts";

const plot: Scatter = {
  title: "Quality against size",
  xLabel: "MiB",
  yLabel: "dB",
  points: [
    { label: "bicubic", x: 0, y: 28, series: 0 },
    { label: "full <precision>", x: 4, y: 32, series: 1 },
    { label: "4 bit", x: 1, y: 31, series: 2 },
    { label: "2 bit", x: 0.25, y: 30, series: 3 },
  ],
};

/** Centres of the marks by label, read from the drawing. */
function centres(svg: string): Map<string, [number, number]> {
  const found = new Map<string, [number, number]>();
  for (const [, shape, label] of svg.matchAll(/<\/title>(.*?)<text[^>]*>(.*?)<\/text><\/g>/g)) {
    const square = /rect x="([\d.]+)" y="([\d.]+)"/.exec(shape);
    const path = /path d="M([\d.]+) ([\d.]+)l/.exec(shape);
    if (square) found.set(label, [Number(square[1]) + 5.5, Number(square[2]) + 5.5]);
    else if (path) found.set(label, [Number(path[1]), Number(path[2])]);
  }
  return found;
}

test("the x axis is logarithmic, y grows upwards, and points at 0 have no place on it", () => {
  const svg = scatterPlot(plot);
  const at = centres(svg);
  expect(svg).not.toContain("bicubic");
  const [full, four, two] = ["full &lt;precision&gt;", "4 bit", "2 bit"].map((k) => at.get(k)!);
  expect(full[0] - four[0]).toBeCloseTo(four[0] - two[0], 0);
  expect(full[1]).toBeLessThan(four[1]);
  expect(four[1]).toBeLessThan(two[1]);
});

test("labels of points in the right half stand to the left of them", () => {
  const svg = scatterPlot(plot);
  expect(svg).toMatch(/text-anchor="end">full &lt;precision&gt;</);
  expect(svg).toMatch(/text-anchor="start">2 bit</);
});

test("one point stands in the frame; none says so", () => {
  const [, full] = plot.points;
  const [x, y] = centres(scatterPlot({ ...plot, points: [full] })).get("full &lt;precision&gt;")!;
  expect(x).toBeGreaterThan(76);
  expect(x).toBeLessThan(680);
  expect(y).toBeGreaterThan(18);
  expect(y).toBeLessThan(282);
  expect(scatterPlot({ ...plot, points: [] })).toContain("No values");
});
