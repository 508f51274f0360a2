/** The layout keeps its word: data flows one way, files stay small, one file loads the addon. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../lib/binding.ts";

const root = packageRoot();

function filesBelow(folder: string, ending: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => ending.test(name))
    .map((name) => join(folder, name));
}

/** Storeys of lib/, from the ground: a file may import its own storey and those below. */
const STOREYS: readonly (readonly RegExp[])[] = [
  [/^lib\/errors\.ts$/],
  [
    /^lib\/binding\.ts$/,
    /^binding\.d\.ts$/,
    /^lib\/events\.ts$/,
    /^lib\/random\.ts$/,
    /^lib\/linalg\//,
  ],
  [/^lib\/tensor\.ts$/, /^lib\/traced\.ts$/],
  [/^lib\/device\.ts$/],
  [/^lib\/autograd\.ts$/],
  [/^lib\/ops\.ts$/],
  [/^lib\/nn\//],
  [/^lib\/models\//, /^lib\/quant\//, /^lib\/io\//, /^lib\/metrics\//],
  [/^lib\/train\//, /^lib\/infer\//, /^lib\/report\//],
  [/^lib\/methods\//],
  [/^lib\/bench\//, /^lib\/serve\//, /^lib\/tables\//],
  [/^lib\/cli\//, /^lib\/index\.ts$/],
];

function storeyOf(file: string): number {
  return STOREYS.findIndex((patterns) => patterns.some((pattern) => pattern.test(file)));
}

test("imports never point upwards", () => {
  const upward: string[] = [];
  for (const file of filesBelow("lib", /\.ts$/)) {
    expect(storeyOf(file), file).toBeGreaterThanOrEqual(0);
    const source = readFileSync(join(root, file), "utf8");
    for (const [, target] of source.matchAll(/from "(\.[^"]+)"/g)) {
      const imported = relative(root, resolve(root, dirname(file), target));
      if (storeyOf(imported) > storeyOf(file)) upward.push(`${file} -> ${imported}`);
    }
  }
  expect(upward).toEqual([]);
});

test("only lib/binding.ts loads the addon, and only native/addon knows Node", () => {
  for (const file of filesBelow("lib", /\.ts$/)) {
    const source = readFileSync(join(root, file), "utf8");
    if (file !== "lib/binding.ts") expect(source, file).not.toMatch(/node-gyp-build"|\.node"/);
  }
  for (const file of filesBelow("native", /\.[ch]pp$/)) {
    const source = readFileSync(join(root, file), "utf8");
    if (!file.startsWith("native/addon/")) expect(source, file).not.toMatch(/napi\.h/);
  }
});

test("files stay within their budgets: TypeScript 300 lines, C++ 500", () => {
  const lines = (file: string): number =>
    readFileSync(join(root, file), "utf8").split("\n").length - 1;
  const large = [
    ...filesBelow("lib", /\.ts$/).filter((file) => lines(file) > 300),
    ...filesBelow("native", /\.([ch]pp|cuh?)$/).filter((file) => lines(file) > 500),
  ];
  expect(large).toEqual([]);
});

test("every op has its reference and its fast version in files of the same name", () => {
  const names = (folder: string, ending = ".cpp"): string[] =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith(ending))
      .sort();
  const reference = names("native/ops").filter((name) => name !== "ops.cpp");
  const choosing = ["backend.cpp", "bit_choice.cpp"]; // between tables, and between kernels of one
  expect(names("native/cpu").filter((name) => !choosing.includes(name))).toEqual(reference);
  const cuda = names("native/cuda", ".cu").map((name) => name.replace(".cu", ".cpp"));
  expect(cuda).toEqual(expect.arrayContaining(reference));
});
