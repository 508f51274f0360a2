/** The frozen plan: fused calls, shared rows and stores past the caches change no bit. */
import { describe, expect, test } from "vitest";
import { Plan } from "../../lib/infer/plan.ts";
import type { Network } from "../../lib/models/network.ts";
import { FloatSites, type Sites } from "../../lib/models/sites.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { fastBackends, on, random } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

/** From here on plans write past the caches. */
const STREAMED = 32 * 2 ** 20;

const MAKERS: Readonly<Record<string, () => Network>> = { mambairv2: tinyNet, swinir: tinySwin };

function sitesOf(net: Network, bits: number): Sites {
  if (bits === 32) return new FloatSites();
  const sizes = { experts: 1, rank: 2 };
  const policy = policyFor("best", bits);
  return createStudent(new Memory(), net, policy, RECIPES.best, sizes, pictures(2, 32, 3), 0).sites;
}

describe.each(Object.keys(MAKERS))("%s", (name) => {
  test.each([32, 4, 1])("%i bit, an arena beyond the caches: the same pixels", async (bits) => {
    const net = MAKERS[name]();
    const sites = sitesOf(net, bits);
    const [width, height] = [560, 330];
    const image = random(width * height * 3, 5, 0, 1);
    const routing = { mode: "sampled", seed: 1 } as const;
    const fused = new Plan(net, sites, width, height, routing);
    const plain = new Plan(net, sites, width, height, routing, false);
    expect(fused.arenaBytes).toBeGreaterThan(STREAMED);
    expect(fused.arenaBytes).toBeLessThanOrEqual(plain.arenaBytes);
    const [one, other] = [await fused.run(image), await plain.run(image)];
    expect(Buffer.compare(Buffer.from(one.buffer), Buffer.from(other.buffer))).toBe(0);
  });

  test.each(fastBackends)("on %s fused and plain plans give the same pixels", async (backend) => {
    const plans = on(backend, () => {
      const net = MAKERS[name]();
      const sites = sitesOf(net, 4);
      const make = (fused: boolean): Plan =>
        new Plan(net, sites, 47, 39, { mode: "argmax", seed: 0 }, fused);
      return [make(true), make(false)];
    });
    const image = random(47 * 39 * 3, 6, 0, 1);
    const [fused, plain] = [await plans[0].run(image), await plans[1].run(image)];
    expect(fused).toEqual(plain);
  });
});
