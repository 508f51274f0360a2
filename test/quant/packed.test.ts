/** The packed file and its plan against the training graph: codes site by site, then pixels. */
import { describe, expect, test } from "vitest";
import { Graph } from "../../lib/autograd.ts";
import type { F32 } from "../../lib/binding.ts";
import { Plan } from "../../lib/infer/plan.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import type { Network } from "../../lib/models/network.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import type { Codes } from "../../lib/quant/codes.ts";
import { packCodes, unpackCodes } from "../../lib/quant/bitpack.ts";
import { packStudent, unpackModel } from "../../lib/quant/pack.ts";
import { policyFor, type Scope } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { random } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

function student(bits: number, scope: Scope, net: Network = tinyNet()): Student {
  const made = createStudent(
    new Memory(),
    net,
    policyFor(scope, bits),
    RECIPES.best,
    { experts: 2, rank: 2 },
    pictures(2, 32, 3),
    0,
  );
  // Rectifiers start as nothing; give them something to merge.
  let seed = 50;
  for (const group of made.sites.rectifiers.values()) {
    group.b.data.set(random(group.b.size, seed++, -0.02, 0.02));
    group.logits.data.set(random(group.logits.size, seed++));
  }
  return made;
}

/** Codes of every site in one pass of the training graph. */
function codesOf(
  { net, sites }: Student,
  side: number,
): {
  codes: Map<string, Uint8Array>;
  pixels: Float32Array;
} {
  const graph = new Graph("running", new Memory());
  const codes = new Map<string, Uint8Array>();
  sites.tap = (site: string, value: Codes) => codes.set(site, Uint8Array.from(value.codes));
  const output = net.forward(
    graph,
    pictures(1, side, 9),
    sites,
    new Router({ mode: "sampled", seed: 5 }),
  );
  sites.tap = null;
  return { codes, pixels: Float32Array.from(output.data) };
}

const NETWORKS = [
  { name: "MambaIRv2", make: tinyNet, side: 24, sites: { best: 99, table4: 105, released: 111 } },
  // A side that is no multiple of the window: the plan pads as the tape does.
  { name: "SwinIR", make: tinySwin, side: 23, sites: { best: 39, table4: 45, released: 45 } },
] as const;

describe.each(NETWORKS)("$name", ({ make, side, sites: wanted }) => {
  for (const scope of ["best", "table4", "released"] as const) {
    for (const bits of [8, 4, 2, 1]) {
      test(`${bits} bit, scope ${scope}: packed plan and training graph agree in every code and pixel`, async () => {
        const made = student(bits, scope, make());
        const bytes = packStudent(made, { seed: "0" });
        const { tensors, metadata } = readSafetensors(bytes, "packed");
        const back = unpackModel(tensors, metadata, "packed");
        const [before, after] = [codesOf(made, side), codesOf(back, side)];
        let sites = 0;
        for (const [site, codes] of before.codes) {
          expect(Math.max(...codes)).toBeLessThan(2 ** bits);
          const weight = back.sites.frozen.get(site.replace(/\.w$/, ""));
          if (site.endsWith(".w") && weight) {
            const [rows, columns] = [weight.shape[0], weight.size / weight.shape[0]];
            expect(unpackCodes(weight.codes, rows, columns, weight.storageBits)).toEqual(codes);
          } else {
            expect(after.codes.get(site), site).toEqual(codes);
          }
          sites++;
        }
        expect(sites).toBe(wanted[scope]);
        const plan = new Plan(back.net, back.sites, side, side, { mode: "sampled", seed: 5 });
        const pixels = await plan.run(pictures(1, side, 9).data);
        expect(pixels).toEqual(before.pixels);
      });
    }
  }
});

test("codes of every width survive packing, also when a row does not fill its last byte", () => {
  for (const bits of [1, 2, 4, 8]) {
    for (const columns of [1, 3, 9, 25, 48]) {
      const codes = Uint8Array.from(
        random(5 * columns, bits * 100 + columns, 0, 2 ** bits - 1e-3),
        Math.floor,
      );
      const packed = packCodes(codes, 5, columns, bits);
      expect(packed.length).toBe(5 * Math.ceil((columns * bits) / 8));
      expect(unpackCodes(packed, 5, columns, bits)).toEqual(codes);
    }
  }
});

test("a quantised file with a missing tensor, a foreign one or another version is refused", () => {
  const bytes = packStudent(student(4, "best"), {});
  const { tensors, metadata } = readSafetensors(bytes, "packed");
  const key = "layers.0.residual_group.layers.0.bounds";
  const kept = tensors.get(key)!;
  tensors.delete(key);
  expect(() => unpackModel(tensors, metadata, "packed")).toThrow(key);
  tensors.set(key, kept);
  tensors.set("stranger", kept);
  expect(() => unpackModel(tensors, metadata, "packed")).toThrow(/unexpected tensor "stranger"/);
  expect(() => unpackModel(tensors, { ...metadata, format_version: "99" }, "packed")).toThrow(
    /format version/,
  );
});

test("the float plan gives the pixels of the running graph, sampled and argmax", async () => {
  for (const net of [tinyNet(), tinySwin()])
    for (const mode of ["sampled", "argmax"] as const) {
      const graph = new Graph("running", new Memory());
      const image = pictures(1, 24, 4);
      const wanted = net.forward(graph, image, new FloatSites(), new Router({ mode, seed: 2 }));
      const plan = new Plan(net, new FloatSites(), 24, 24, { mode, seed: 2 });
      expect(await plan.run(image.data)).toEqual(Float32Array.from(wanted.data));
    }
});

test("a plan too large for the caches, whose values bypass them, gives the same pixels", async () => {
  const image = pictures(1, 320, 4);
  const run = async (fused: boolean): Promise<F32> => {
    const plan = new Plan(
      tinyNet(),
      new FloatSites(),
      320,
      320,
      { mode: "sampled", seed: 2 },
      fused,
    );
    expect(plan.arenaBytes).toBeGreaterThan(32 * 1024 * 1024);
    return plan.run(image.data);
  };
  expect(
    Buffer.compare(Buffer.from((await run(true)).buffer), Buffer.from((await run(false)).buffer)),
  ).toBe(0);
});

test("an aborted plan stops with ERR_ABORTED", async () => {
  const plan = new Plan(tinyNet(), new FloatSites(), 64, 64, { mode: "argmax", seed: 0 });
  const stop = new AbortController();
  const running = plan.run(pictures(1, 64, 4).data, stop.signal);
  stop.abort();
  await expect(running).rejects.toMatchObject({ code: "ERR_ABORTED" });
});
