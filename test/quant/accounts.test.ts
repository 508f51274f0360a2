import { describe, expect, test } from "vitest";
import { openModel } from "../../lib/infer/model.ts";
import { lightConfig, parameterSpecs } from "../../lib/models/parameters.ts";
import {
  countedInput,
  macAccount,
  macRows,
  siteBits,
  sizeAccount,
} from "../../lib/quant/accounts.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { hasTestData, testData } from "../data.ts";

const x4 = lightConfig(4);
const eq1 = (bits: number) => policyFor("table4", bits);
const giga = (value: number) => (value / 1e9).toFixed(3);

describe("sizes of the x4 network", () => {
  test("in float it has 789,680 parameters and takes 3.0124 MiB", () => {
    const size = sizeAccount(x4, null);
    expect(size.parameters).toBe(789_680);
    expect(size.quantisedParameters).toBe(0);
    expect(size.mebibytes.toFixed(4)).toBe("3.0124");
    expect(size.ratio).toBe(1);
  });

  test.each([
    ["table4", 4, 541_760, "1.2041"],
    ["table4", 2, 541_760, "1.0749"],
    ["table4", 1, 541_760, "1.0103"],
    ["released", 4, 550_400, "1.1752"],
    ["released", 2, 550_400, "1.0440"],
    ["released", 1, 550_400, "0.9784"],
  ] as const)(
    "at scope %s and %i bit, %i parameters are quantised: %s MiB",
    (scope, bits, q, mib) => {
      const size = sizeAccount(x4, policyFor(scope, bits));
      expect(size.quantisedParameters).toBe(q);
      expect(size.mebibytes.toFixed(4)).toBe(mib);
    },
  );

  test("the leads change no size: best counts as table4", () => {
    expect(sizeAccount(x4, policyFor("best", 2))).toEqual(sizeAccount(x4, eq1(2)));
  });

  test("2DQuant's convention leaves out the 961 x 4 position tables of all 20 layers", () => {
    const { withoutTables, bytes } = sizeAccount(x4, eq1(4));
    expect(withoutTables.megabytes * 1e6).toBeCloseTo(bytes - 20 * 961 * 4 * 4, 3);
  });

  test("with a file's tensors, exactly the parameters stored as codes count as quantised", () => {
    const prefix = "layers.0.residual_group.layers.0.";
    const stored = new Map<string, number>([
      [`${prefix}wqkv.q.codes`, 1],
      [`${prefix}wqkv.k.codes`, 1],
      [`${prefix}wqkv.v.codes`, 1],
      [`${prefix}assm.selectiveScan.x_proj_weight.codes`, 1],
    ]);
    const { quantisedParameters, bytes } = sizeAccount(x4, eq1(4), stored);
    expect(quantisedParameters).toBe(144 * 48 + 19 * 48);
    expect(bytes).toBe(4 * 789_680 - 3.5 * quantisedParameters);
  });
});

describe("multiply-accumulates of the x4 network", () => {
  test("in float, 320x180 padded to 320x192 takes exactly 75.642306560 G", () => {
    const account = macAccount(x4, null);
    expect(account.input).toEqual({ width: 320, height: 180, padded: true });
    expect(account.tokens).toBe(61_440);
    expect(account.macs).toBe(75_642_306_560);
    expect(account.priced).toBe(account.macs);
    expect(account.bitOperations).toBe(account.macs * 1024);
  });

  test.each([
    [2, "286.298"],
    [3, "126.706"],
  ])("the x%i network takes %s G for the same result", (scale, text) => {
    expect(giga(macAccount(lightConfig(scale), null).macs)).toBe(text);
  });

  test.each([
    ["table4", 4, "22.020"],
    ["table4", 2, "18.189"],
    ["table4", 1, "16.274"],
    ["released", 4, "21.555"],
    ["released", 2, "17.692"],
    ["released", 1, "15.760"],
  ] as const)("at scope %s and %i bit with Eq. 1, it is priced %s G", (scope, bits, text) => {
    const account = macAccount(x4, policyFor(scope, bits));
    expect(giga(account.priced)).toBe(text);
    expect(account.pricedUniform).toBe(account.priced);
  });

  test.each([
    [4, "23.907", "22.020"],
    [2, "19.133", "18.189"],
  ])(
    "half-exponent codes at %i bit are priced at 2n: %s G, and %s G uniformly",
    (bits, real, uniform) => {
      const account = macAccount(x4, policyFor("best", bits));
      expect(giga(account.priced)).toBe(real);
      expect(giga(account.pricedUniform)).toBe(uniform);
    },
  );

  test("without padding the count shrinks by exactly 180/192, but for the prompt pool", () => {
    const padded = macAccount(x4, null).macs;
    const bare = macAccount(x4, null, { ...countedInput(4), padded: false }).macs;
    const pool = 20 * 64 * 32 * 8;
    expect(bare - pool).toBe(((padded - pool) * 180) / 192);
  });

  test("bit operations multiply both operands' widths: 4 x 8 for the half-exponent product", () => {
    const row = macRows(x4, policyFor("best", 4)).find(({ name }) => name === "probabilities v");
    expect(row?.bits).toEqual([8, 4]);
    const rows = macRows(x4, policyFor("best", 4));
    const sum = rows.reduce((total, { macs, bits }) => total + macs * bits[0] * bits[1], 0);
    expect(macAccount(x4, policyFor("best", 4)).bitOperations).toBe(sum);
  });
});

describe("bits by kind of site", () => {
  test("scan operands and the positional convolution are float except at scope released", () => {
    expect(siteBits(policyFor("best", 4))).toMatchObject({
      scanOperands: 32,
      positionalConvolution: 32,
    });
    expect(siteBits(policyFor("released", 4))).toMatchObject({
      scanOperands: 4,
      positionalConvolution: 4,
    });
  });

  test("the operand of a half-exponent code has twice its bits", () => {
    expect(siteBits(policyFor("best", 2))).toMatchObject({
      probabilities: 2,
      probabilityOperand: 4,
    });
    expect(siteBits(policyFor("table4", 2)).probabilityOperand).toBe(2);
    expect(siteBits(null)).toMatchObject({
      weights: 32,
      probabilities: 32,
      probabilityOperand: 32,
    });
  });
});

test("every parameter of the published network is named by one rule only", () => {
  const names = parameterSpecs(x4).map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});

test.skipIf(!hasTestData)("the official x4 file holds the network that is counted", async () => {
  const model = await openModel(testData("weights/mambairv2_lightSR_x4.pth"));
  expect(sizeAccount(model.net.config, null, model.stored).bytes).toBe(4 * 789_680);
  expect(macAccount(model.net.config, null).macs).toBe(75_642_306_560);
});
