import { describe, expect, test } from "vitest";
import { openModel } from "../../lib/infer/model.ts";
import { MAMBAIRV2 } from "../../lib/models/mambairv2.ts";
import { SWINIR } from "../../lib/models/swinir.ts";
import {
  countedInput,
  macAccount,
  macRows,
  siteBits,
  sizeAccount,
} from "../../lib/quant/accounts.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { hasTestData, testData } from "../data.ts";

const mamba = (scale: number) => ({
  architecture: MAMBAIRV2,
  config: MAMBAIRV2.lightConfig(scale),
});
const swin = (scale: number) => ({ architecture: SWINIR, config: SWINIR.lightConfig(scale) });
const x4 = mamba(4);
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
    expect(giga(macAccount(mamba(scale), null).macs)).toBe(text);
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
    expect(siteBits(MAMBAIRV2, policyFor("best", 4))).toMatchObject({
      scanOperands: 32,
      positionalConvolution: 32,
    });
    expect(siteBits(MAMBAIRV2, policyFor("released", 4))).toMatchObject({
      scanOperands: 4,
      positionalConvolution: 4,
    });
  });

  test("the operand of a half-exponent code has twice its bits", () => {
    expect(siteBits(MAMBAIRV2, policyFor("best", 2))).toMatchObject({
      probabilities: 2,
      probabilityOperand: 4,
    });
    expect(siteBits(MAMBAIRV2, policyFor("table4", 2)).probabilityOperand).toBe(2);
    expect(siteBits(MAMBAIRV2, null)).toMatchObject({
      weights: 32,
      probabilities: 32,
      probabilityOperand: 32,
    });
  });
});

test("every parameter of the published network is named by one rule only", () => {
  const names = MAMBAIRV2.parameterSpecs(x4.config).map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});

test.skipIf(!hasTestData)("the official x4 file holds the network that is counted", async () => {
  const model = await openModel(testData("weights/mambairv2_lightSR_x4.pth"));
  expect(sizeAccount(model.net, null, model.stored).bytes).toBe(4 * 789_680);
  expect(macAccount(model.net, null).macs).toBe(75_642_306_560);
});

describe("SwinIR-light", () => {
  test.each([
    [2, 910_152, 877_752],
    [3, 918_267, 885_867],
    [4, 929_628, 897_228],
  ])("x%i has %i parameters, %i without position tables", (scale, all, withoutTables) => {
    const size = sizeAccount(swin(scale), null);
    expect(size.parameters).toBe(all);
    expect(size.withoutTables.megabytes * 1e6).toBeCloseTo(4 * withoutTables, 3);
  });

  test.each([
    [2, "244.367", 640 * 360],
    [3, "110.805", 432 * 240],
    [4, "63.594", 320 * 184],
  ])("x%i takes %s G for 1280x720 pixels out", (scale, text, tokens) => {
    const account = macAccount(swin(scale), null);
    expect(account.tokens).toBe(tokens);
    expect(giga(account.macs)).toBe(text);
  });

  test.each([
    [4, "3.07"],
    [2, "3.60"],
  ])("at %i bit the 691,200 linear weights make it 1/%s without tables", (bits, ratio) => {
    const size = sizeAccount(swin(4), policyFor("released", bits));
    expect(size.quantisedParameters).toBe(691_200);
    expect(size.withoutTables.ratio.toFixed(2)).toBe(ratio);
    expect(sizeAccount(swin(4), policyFor("best", bits))).toEqual(size);
  });

  test("linear layers are 64 % of the MACs, attention 17 %, and both are priced at n bits", () => {
    const rows = macRows(swin(4), policyFor("released", 4));
    const share = (bits: number, pattern: RegExp): string => {
      const chosen = rows.filter(({ name, bits: [a] }) => a === bits && pattern.test(name));
      return giga(chosen.reduce((sum, { macs }) => sum + macs, 0));
    };
    expect(share(4, /^(qkv|proj|fc)/)).toBe("40.698");
    expect(share(4, /q k|prob/)).toBe("10.853");
    expect(share(32, /./)).toBe(giga(63_593_625_600 - 40_697_856_000 - 10_852_761_600));
  });

  test("has no scan and no positional convolution to count bits for", () => {
    expect(siteBits(SWINIR, policyFor("released", 2))).toMatchObject({
      activations: 2,
      scanOperands: null,
      positionalConvolution: null,
    });
  });
});
