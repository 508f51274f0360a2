/** The native boundary: binding.d.ts, the addon's exports and the op list name the same things. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { native, packageRoot, type PlanHandle } from "../lib/binding.ts";

const camel = (name: string): string =>
  name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

test("binding.d.ts declares exactly what the addon exports, in the same order", () => {
  const source = readFileSync(join(packageRoot(), "binding.d.ts"), "utf8");
  const declared = [...source.matchAll(/^ {2}(\w+)\(/gm)].map((match) => match[1]);
  expect(declared).toEqual(Object.keys(native()));
});

test("every op of the list in ops.hpp is exported under its camel-case name", () => {
  const header = readFileSync(join(packageRoot(), "native/core/ops.hpp"), "utf8");
  const ops = [...header.matchAll(/X\((\w+), \w+\)/g)].map((match) => camel(match[1]));
  expect(ops.length).toBeGreaterThan(50);
  expect(native().opNames()).toEqual(ops);
});

test("bad arguments are refused by name and never reach a kernel", () => {
  const n = native();
  const four = new Float32Array(4);
  expect(() => n.gelu(four, four, 5)).toThrow(/gelu: needs/);
  expect(() => n.gelu(four, [1, 2] as never, 2)).toThrow(/gelu: y must be a Float32Array/);
  expect(() => n.gelu(four, four, 1.5)).toThrow(/gelu: n must be an integer/);
  expect(() => (n.gelu as (...a: unknown[]) => void)(four)).toThrow(/takes 3 arguments/);
  expect(() => n.linear(four, four, null, four, 2, 2, 3)).toThrow(/linear: needs/);
  expect(() => n.useBackend("abacus")).toThrow(/abacus/);
});

test("sizes whose products leave 64 bits are refused, not wrapped", () => {
  const n = native();
  const [byte, packed] = [new Uint8Array(1), new Uint8Array((2 * 4096 + 12) * 16)];
  const none = [null, null, null, null, null, null, null, null, null, null, null, null] as const;
  expect(() =>
    n.fusedCodedLinear(
      ...([byte, packed, ...none, 2 ** 52, 4096, 1] as const),
      ...([4, 4, 0, 0, 0, 1, 0, 1, 0, 0, 1] as const),
    ),
  ).toThrow(/fused_coded_linear: .*2\^56/);
  const four = new Float32Array(4);
  const image = [2 ** 31, 2 ** 31, 4, 1, 3] as const;
  expect(() => n.gatedDepthwiseConv(four, four, null, four, ...image)).toThrow(/2\^56/);
});

test("a plan that reaches outside its arena is refused when it is made", () => {
  const gelu = native().opNames().indexOf("gelu");
  const code = Float64Array.from([gelu, -1, -1, 0, 0, 4, 0, 0, 16, 4, 0, 4]);
  expect(() => native().createPlan(code, [], 24, 0, 0)).toThrow(/outside its block/);
  expect(native().createPlan(code, [], 32, 0, 0)).toBeTypeOf("object");
  expect(() => native().createPlan(Float64Array.from([9999]), [], 0, 0, 0)).toThrow(/unknown op/);
  // The same call on tiles of 2 of 4 rows, whose result is exported to byte 16 of the arena.
  const tiled = [gelu, 2, -1, 0, 0, 4, 1, -2, 0, 4, 1, 1];
  const segment = (offset: number): Float64Array =>
    Float64Array.from([-1, 1, 4, 2, 8, 1, 0, offset, 4, ...tiled]);
  expect(() => native().createPlan(segment(16), [], 31, 0, 0)).toThrow(/export reaches outside/);
  expect(native().createPlan(segment(16), [], 32, 0, 0)).toBeTypeOf("object");
});

test("an arena that the system has no memory for rejects the run with its code", async () => {
  const n = native();
  const gelu = n.opNames().indexOf("gelu");
  const code = Float64Array.from([gelu, -1, -1, 1, 0, 4, 0, 2, 0, 4, 0, 4]);
  const [input, output] = [Float32Array.of(1, 2, 3, 4), new Float32Array(4)];
  const run = (plan: PlanHandle) => n.runPlan(plan, input, output, null, null, 0, null);
  await expect(run(n.createPlan(code, [], 2 ** 46, 4, 4))).rejects.toMatchObject({
    code: "ERR_OUT_OF_MEMORY",
  });
  const small = n.createPlan(code, [], 64, 4, 4);
  expect(await run(small)).toBe(true);
  expect(output[3]).toBeCloseTo(4, 2);
  n.releasePlan(small);
  n.releasePlan(small);
  expect(() => run(small)).toThrow(/released/);
});
