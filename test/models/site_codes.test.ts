/**
 * The quantised networks on every instruction set and thread count, site by site: the codes are the
 * reference's, from the reference's codes before them and on its routes. A value that falls between
 * two codes to the last bit may fall either way; such ties are counted and differ by one.
 */
import { describe, expect, test } from "vitest";
import { Graph, type Var } from "../../lib/autograd.ts";
import type { F32, I32 } from "../../lib/binding.ts";
import type { Network } from "../../lib/models/network.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { policyFor, type Scope } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { hasTestData } from "../data.ts";
import { loadNetwork, readGolden } from "./golden.ts";
import { fastBackends, on, random } from "../ops/harness.ts";
import { onThreads } from "../ops/threads.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

function studentOf(net: Network, scope: Scope, bits: number, patches: Var): Student {
  const policy = policyFor(scope, bits);
  const shape = { experts: 2, rank: 2 };
  const made = createStudent(new Memory(), net, policy, RECIPES.best, shape, patches, 0);
  let seed = 50;
  for (const group of made.sites.rectifiers.values()) {
    group.b.data.set(random(group.b.size, seed++, -0.02, 0.02));
    group.logits.data.set(random(group.logits.size, seed++));
  }
  return made;
}

/** Classes that the full-precision network chooses on the reference, layer by layer. */
function routesOf(net: Network, image: Var): Routes {
  const router = new Router({ mode: "sampled", seed: 5 });
  on("reference", () => net.forward(new Graph("running"), image, new FloatSites(), router));
  return router.classes;
}

type Routes = readonly (I32 | undefined)[];

/** One pass of the training graph; `tap` sees the codes of every site before anything uses them. */
function pass({ net, sites }: Student, image: Var, routes: Routes, tap: Tap): F32 {
  const graph = new Graph("running", new Memory());
  sites.tap = (site, value) => tap(site, value.codes);
  const output = net.forward(graph, image, sites, new Router({ replay: routes }));
  sites.tap = null;
  return Float32Array.from(output.data);
}
type Tap = (site: string, codes: Uint8Array) => void;

/** What a comparison saw: how many codes, and those that differ, as "site: 3 for 4". */
interface Seen {
  codes: number;
  readonly ties: string[];
}

/** Compares the fast backends with the reference; a site that differs is put right before it is used. */
function compare(student: Student, image: Var, threads: readonly number[]): Seen {
  const routes = routesOf(student.net, image);
  const wanted = new Map<string, Uint8Array>();
  const pixels = on("reference", () =>
    pass(student, image, routes, (site, codes) => wanted.set(site, Uint8Array.from(codes))),
  );
  const seen: Seen = { codes: 0, ties: [] };
  for (const backend of fastBackends) {
    for (const count of threads) {
      const sites: string[] = [];
      const check: Tap = (site, codes) => {
        const expected = wanted.get(site)!;
        sites.push(site);
        seen.codes += codes.length;
        if (!Buffer.compare(codes, expected)) return;
        codes.forEach((code, i) => {
          if (code === expected[i]) return;
          expect(Math.abs(code - expected[i]), `${site} on ${backend}`).toBe(1);
          seen.ties.push(`${site}: ${code} for ${expected[i]}`);
        });
        codes.set(expected);
      };
      const got = onThreads(backend, count, () => pass(student, image, routes, check));
      expect(sites).toEqual([...wanted.keys()]);
      // The same codes through other arithmetic: values differ in their last bits.
      expect(got).not.toEqual(pixels);
    }
  }
  return seen;
}

const NETWORKS: readonly [string, () => Network][] = [
  ["MambaIRv2", tinyNet],
  ["SwinIR", tinySwin],
];

describe.each(NETWORKS)("the codes of a small %s are the reference's", (_, make) => {
  for (const scope of ["best", "table4", "released"] as const) {
    test.each([8, 4, 2, 1])(`%d bit, scope ${scope}`, (bits) => {
      const student = studentOf(make(), scope, bits, pictures(2, 24, 3));
      const { codes, ties } = compare(student, pictures(1, 24, 9), [1, 2, 3]);
      expect(codes).toBeGreaterThan(200_000);
      if (bits < 8) expect(ties).toEqual([]);
      else expect(ties.length).toBeLessThan(codes / 100_000);
    });
  }
});

describe.skipIf(!hasTestData)("and on the official weights of MambaIRv2-light x4", () => {
  test.each([4, 2, 1])("%d bit, scope best", (bits) => {
    const net = loadNetwork("weights/mambairv2_lightSR_x4.pth");
    const { input } = readGolden("golden/mambairv2-light-x4/forward-sample.safetensors");
    const student = studentOf(net, "best", bits, input);
    const { codes, ties } = compare(student, input, [2]);
    console.log(`${bits} bit: ${ties.length} of ${codes} codes are ties: ${ties.join(", ")}`);
    expect(ties.length).toBeLessThan(codes / 100_000);
  });
});
