import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { command, parseRoutingTable } from "../../lib/cli/commands/inspect.ts";
import { gateBlocks, routingHeatMap } from "../../lib/cli/commands/inspect_text.ts";
import { Var } from "../../lib/autograd.ts";
import { openModel } from "../../lib/infer/model.ts";
import { MAMBAIRV2 } from "../../lib/models/mambairv2.ts";
import { macAccount, sizeAccount } from "../../lib/quant/accounts.ts";
import { type Bounds, type Granularity, jointBounds } from "../../lib/quant/codes.ts";
import { type Policy, policyFor } from "../../lib/quant/policy.ts";
import { summariseBounds } from "../../lib/quant/site_kinds.ts";
import { hasTestData, testData } from "../data.ts";
import { temporaryFolder } from "../io/helpers.ts";
import { runCommand, TINY, writePackedModel, writeTinyModel } from "./tiny_model.ts";

async function inspectJson(path: string) {
  const { code, out } = await runCommand(command, [path, "--json"]);
  return { code, result: JSON.parse(out) };
}

const tiny = { architecture: MAMBAIRV2, config: TINY };
const packed = (policy: Policy) => writePackedModel(temporaryFolder(), policy);

describe("a full-precision file", () => {
  test("shows its configuration, sizes and MACs, and no quantiser", async () => {
    const path = await writeTinyModel(temporaryFolder());
    const { code, result } = await inspectJson(path);
    expect(code).toBe(0);
    expect(result).toMatchObject({ model: path, scale: 2, config: TINY, scope: null, leads: null });
    expect(result).toMatchObject({
      bounds: [],
      boundBytes: 0,
      releasedScope: null,
      routingTable: null,
    });
    expect(result.bits).toMatchObject({ weights: 32, activations: 32, scanOperands: 32 });
    const count = MAMBAIRV2.parameterSpecs(TINY).reduce(
      (n, { shape }) => n + shape.reduce((a, b) => a * b, 1),
      0,
    );
    expect(result.size).toMatchObject({
      parameters: count,
      quantisedParameters: 0,
      bytes: 4 * count,
    });
    expect(result.diskBytes).toBe(statSync(path).size);
    expect(result.macs.macs).toBe(macAccount(tiny, null).macs);
  });

  test("as text says so in words", async () => {
    const { code, out } = await runCommand(command, [await writeTinyModel(temporaryFolder())]);
    expect(code).toBe(0);
    expect(out).toContain("mambairv2 x2: 16 channels, layers 1+1, 2 heads, window 8");
    expect(out).toMatch(/everything +float/);
    expect(out).toContain("MACs for 640x360 pixels in, padded to 640x360");
    expect(out).not.toContain("priced");
    expect(out).not.toContain("Ranges of the bounds");
  });

  test("a .pth file without a name this project knows is ERR_CHECKPOINT, a missing one ERR_IO", async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "x.pth"), "no weights");
    expect((await inspectJson(join(folder, "x.pth"))).result.error.code).toBe("ERR_CHECKPOINT");
    expect((await inspectJson(join(folder, "none.pth"))).result.error.code).toBe("ERR_IO");
  });

  test.skipIf(!hasTestData)("the official x4 file is 3.0124 MiB and 75.642 G", async () => {
    const { out } = await runCommand(command, [testData("weights/mambairv2_lightSR_x4.pth")]);
    expect(out).toContain("789,680, 0 of them quantised");
    expect(out).toContain("3.0124 MiB");
    expect(out).toContain("75.642 G");
    expect(out).toContain("MACs for 320x180 pixels in, padded to 320x192");
  });
});

describe("a quantised file", () => {
  test.each([
    ["best", 4],
    ["table4", 2],
    ["released", 4],
  ] as const)(
    "at scope %s and %i bit: counted from its codes as from its policy",
    async (scope, bits) => {
      const policy = policyFor(scope, bits);
      const path = await packed(policy);
      const { result } = await inspectJson(path);
      expect(result).toMatchObject({
        scope,
        leads: policy.leads,
        metadata: { recipe: "quick", seed: "3" },
      });
      expect(result.size).toEqual(sizeAccount(tiny, policy));
      expect(result.macs).toEqual(macAccount(tiny, policy));
      expect(result.releasedScope.macs).toEqual(
        macAccount(tiny, policyFor("released", bits, policy.leads)),
      );
      expect(result.bits.scanOperands).toBe(scope === "released" ? bits : 32);
      const { stored } = await openModel(path);
      const bounds = [...stored].filter(([name]) => name.endsWith(".bounds"));
      expect(bounds).toHaveLength(2);
      expect(result.boundBytes).toBe(bounds.reduce((sum, [, bytes]) => sum + bytes, 0));
    },
  );

  test("the bounds of every site are summarised once, with as many ranges as are stored", async () => {
    const path = await packed(policyFor("best", 4));
    const { quantised } = await openModel(path);
    const { result } = await inspectJson(path);
    const total = result.bounds.reduce((sum: number, row: { sites: number }) => sum + row.sites, 0);
    expect(total).toBe(quantised?.bounds.size);
    const kinds = new Map(result.bounds.map((row: { kind: string }) => [row.kind, row]));
    expect(kinds.has("other sites")).toBe(false);
    expect(kinds.has("softmax probabilities")).toBe(false); // half-exponent codes have no bounds
    // Two layers: q, k, v, proj, four fc, two of the router, in_proj, x_proj, dt_proj, out_proj.
    expect(kinds.get("weights of linear layers")).toMatchObject({ sites: 28 });
    expect(kinds.get("attention q, k, v")).toMatchObject({ sites: 6, ranges: 6 });
    for (const { min, median, max } of result.bounds) {
      expect(min).toBeGreaterThan(0);
      expect(median).toBeGreaterThanOrEqual(min);
      expect(max).toBeGreaterThanOrEqual(median);
    }
  });

  test("as text names the bits, both prices and the figure at scope released", async () => {
    const { out } = await runCommand(command, [await packed(policyFor("best", 2))]);
    expect(out).toContain("Bits (scope best, leads: halfExponent, channelOffsets, rowBounds)");
    expect(out).toMatch(/weights +2 bit, bounds per output channel/);
    expect(out).toMatch(
      /softmax probabilities +2 bit, half-exponent codes: 4 bit where they meet v/,
    );
    expect(out).toMatch(/scan operands +float/);
    const { priced, pricedUniform } = macAccount(tiny, policyFor("best", 2));
    expect(out).toContain(`${(priced / 1e9).toFixed(3)} G`);
    expect(out).toContain(
      `${(pricedUniform / 1e9).toFixed(3)} G (every quantised product at n bits)`,
    );
    expect(out).toMatch(/at scope released +0\.\d{4} MiB/);
    expect(out).toMatch(/made with +recipe quick, seed 3/);
  });

  test("its routing table is drawn where table.json lies beside it", async () => {
    const path = await packed(policyFor("best", 4));
    const prefix = "layers.0.residual_group.layers.0.";
    const layers = {
      [`${prefix}wqkv.q`]: [0, 0.5, 0.5, 0],
      [`${prefix}win_mhsa.proj`]: [1, 0, 0, 0],
    };
    writeFileSync(
      join(path, "../table.json"),
      JSON.stringify({ layers, lossBefore: 0.5, lossAfter: 0.25 }),
    );
    const { out } = await runCommand(command, [path]);
    expect(out).toContain("calibration loss 0.5000 -> 0.2500");
    expect(out).toMatch(/^ {2}0\.0 +·▄▄· █···$/m);
    expect(out).toContain("columns: 1 wqkv.q, 2 win_mhsa.proj");
    expect((await inspectJson(path)).result.routingTable).toMatchObject({
      layers,
      lossAfter: 0.25,
    });
  });

  test("a table.json that is none is said, and the rest is shown all the same", async () => {
    const path = await packed(policyFor("table4", 4));
    writeFileSync(join(path, "../table.json"), "[1, 2");
    const { code, out } = await runCommand(command, [path]);
    expect(code).toBe(0);
    expect(out).toContain("Routing table not shown:");
    expect(out).toContain("Size");
  });
});

describe("parts", () => {
  const vector = (...values: number[]) => new Var(Float32Array.from(values), [values.length]);
  const pair = (granularity: Granularity, lower: number[], upper: number[]): Bounds => ({
    lower: vector(...lower),
    upper: vector(...upper),
    granularity,
    bits: 4,
  });

  test("ranges are upper - lower: by row, by the joint range of offsets, by joint pairs", () => {
    const bounds = new Map([
      ["a.wqkv.q.w", pair("row", [0, -1, 0], [1, 1, 8])],
      ["a.win_mhsa.proj.w", pair("row", [0], [4])],
      ["a.convffn1.sg.conv.x", pair("column", [3, 5, 7], [2])],
      ["a.win_mhsa.p", jointBounds(0.25, 1, 4)],
    ]);
    expect(summariseBounds(bounds)).toEqual([
      { kind: "weights of linear layers", sites: 2, ranges: 4, min: 1, median: 3, max: 8 },
      { kind: "inputs of depth-wise convolutions", sites: 1, ranges: 1, min: 2, median: 2, max: 2 },
      { kind: "softmax probabilities", sites: 1, ranges: 1, min: 0.75, median: 0.75, max: 0.75 },
    ]);
  });

  test("a gate's height is its weight in eighths", () => {
    expect(gateBlocks([0, 0.125, 0.25, 0.5, 0.75, 1])).toBe("·▁▂▄▆█");
  });

  test("keys that belong to no layer get lines of their own", () => {
    const lines = routingHeatMap({
      head: [1, 0],
      "layers.1.residual_group.blocks.3.mlp.fc1": [0, 1],
    });
    expect(lines[1]).toBe("  head  █·");
    expect(lines[2]).toBe("  1.3      ·█");
  });

  test.each([
    ["{", "is no JSON"],
    ["null", 'has no "layers"'],
    ['{"layers":{"a":[0.5,"x"]}}', 'gates of "a"'],
    ['{"layers":{"a":[2]}}', 'gates of "a"'],
  ])("a routing table of %s is refused in words", (text, wanted) => {
    expect(parseRoutingTable(text, "t.json")).toContain(wanted);
  });
});
