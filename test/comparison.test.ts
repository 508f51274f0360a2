/** docs/comparison.md promises tests by name: each row has one, and each of them exists and is run. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../lib/binding.ts";

const page = join(packageRoot(), "docs", "comparison.md");
const rows = readFileSync(page, "utf8")
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| |") && !line.includes("---"))
  .filter((line) => !line.includes("| proven by |"));
const links = (text: string) => [...text.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)];

test("every test that the comparison names is there", () => {
  const missing: string[] = [];
  for (const [, title, target] of rows.flatMap(links)) {
    const path = join(dirname(page), target);
    const source = existsSync(path) ? readFileSync(path, "utf8") : "";
    const name = /^"(.*)"$/.exec(title)?.[1];
    const quoted = ['"', "`"].some((mark) => source.includes(`${mark}${name}${mark}`));
    if (source === "" || (name !== undefined && !quoted)) missing.push(`${target}: ${title}`);
  }
  expect(missing).toEqual([]);
});

test("every row names a test in its last cell, of a file that .ci/run runs", () => {
  expect(rows.length).toBeGreaterThan(30);
  for (const row of rows) {
    const named = links(row.split("|").at(-2) as string);
    expect(named.length, row).toBeGreaterThan(0);
    for (const [, , target] of named) {
      const path = relative(packageRoot(), join(dirname(page), target));
      expect(path).toMatch(/^(test|examples\/\w+\/test)\/.*\.test\.(ts|js)$/);
    }
  }
});
