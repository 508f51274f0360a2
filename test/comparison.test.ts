/** docs/comparison.md promises tests by name: each of them exists. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../lib/binding.ts";

test("every test that the comparison names is there", () => {
  const page = join(packageRoot(), "docs", "comparison.md");
  const links = [...readFileSync(page, "utf8").matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)];
  expect(links.length).toBeGreaterThan(20);
  const missing: string[] = [];
  for (const [, title, target] of links) {
    const path = join(dirname(page), target);
    const source = existsSync(path) ? readFileSync(path, "utf8") : "";
    const named = /^"(.*)"$/.exec(title)?.[1];
    if (source === "" || (named !== undefined && !source.includes(`"${named}"`))) {
      missing.push(`${target}: ${title}`);
    }
  }
  expect(missing).toEqual([]);
});
