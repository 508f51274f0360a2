import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type RunReport, renderReport } from "../../lib/report/html.ts";

const png = readFileSync(new URL("../../assets/images/page.png", import.meta.url)).toString(
  "base64",
);
const empty: RunReport = {
  title: "T",
  command: "c",
  facts: [],
  table: { columns: [], rows: [] },
  comparisons: [],
  curves: [],
};
const hostile = `</script><script>alert("1")</script><img src=x onerror='x'>&`;

const full: RunReport = {
  title: hostile,
  command: hostile,
  facts: [[hostile, hostile]],
  table: {
    columns: [hostile, "dB"],
    rows: [
      [hostile, 31.5],
      ["b", "30.10"],
    ],
  },
  comparisons: [
    {
      name: hostile,
      left: { label: hostile, pngBase64: png },
      right: { label: "after", pngBase64: png },
      caption: hostile,
    },
  ],
  curves: [
    {
      title: hostile,
      x: [0, 1],
      series: [{ label: hostile, y: [1, 2] }],
      xLabel: hostile,
      yLabel: hostile,
    },
  ],
  heatMap: { title: hostile, rows: [hostile], columns: [hostile], values: [[0.5]] },
};

describe("report", () => {
  test("every text of the report is escaped", () => {
    const html = renderReport(full);
    expect(html.split("<script>").length).toBe(2);
    expect(html).not.toContain('alert("1")');
    expect(html).not.toContain("<img src=x");
    expect(html.split("alert(&quot;1&quot;)").length).toBeGreaterThan(15);
  });

  test("every element that is opened is closed, in order", () => {
    const html = renderReport(full).replace(/<(style|script)>[\s\S]*?<\/\1>/g, "");
    const open: string[] = [];
    for (const [, close, name, rest] of html.matchAll(
      /<(\/?)([a-z][a-z0-9]*)((?:[^>"]|"[^"]*")*)>/g,
    )) {
      if (["meta", "img", "input"].includes(name) || rest.endsWith("/")) continue;
      if (close === "") open.push(name);
      else expect(open.pop()).toBe(name);
    }
    expect(open).toEqual([]);
  });

  test("nothing is fetched: no address but embedded images, and a policy that forbids others", () => {
    const html = renderReport(full);
    expect(html).not.toMatch(/https?:|url\(|@import|<link/);
    const sources = [...html.matchAll(/src="([^"]{0,30})/g)].map((m) => m[1]);
    expect(sources.every((s) => s.startsWith("data:image/png;base64,"))).toBe(true);
    expect(html).toContain("default-src 'none'");
  });

  test("the slider is a labelled range input and the pictures carry their own size", () => {
    const html = renderReport(full);
    expect(html).toMatch(/<input type="range" min="0" max="100" step="1" value="50" aria-label="/);
    expect(html.match(/width="192" height="192" alt="/g)?.length).toBe(2);
  });

  test("columns of numbers are set to the right, columns of words are not", () => {
    const html = renderReport(full);
    expect(html).toContain('<td class="number">30.10</td>');
    expect(html).toContain("<td>b</td>");
  });

  test("an empty report has no empty sections", () => {
    const html = renderReport(empty);
    expect(html).not.toContain("<h2>");
    expect(html).not.toContain("Drag a picture");
  });

  test("the same report gives the same text", () => {
    expect(renderReport(full)).toBe(renderReport(full));
  });

  test.each(["", "not a png", `${png}"><b>`, png.slice(0, 20)])(
    "an image that is no PNG in base64 is refused with ERR_ARGUMENT (case %#)",
    (pngBase64) => {
      const [pair] = full.comparisons;
      const comparisons = [{ ...pair, left: { label: "x", pngBase64 } }];
      const error = expect.objectContaining({ code: "ERR_ARGUMENT" });
      expect(() => renderReport({ ...empty, comparisons })).toThrow(error);
    },
  );

  test("a table row of the wrong length is refused with ERR_ARGUMENT", () => {
    const table = { columns: ["a", "b"], rows: [[1]] };
    const error = expect.objectContaining({ code: "ERR_ARGUMENT" });
    expect(() => renderReport({ ...empty, table })).toThrow(error);
  });
});
