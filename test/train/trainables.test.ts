/** How far each bound moves in a step. */
import { expect, test } from "vitest";
import { policyFor } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { calibratedStudent } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { trainablesOf } from "../../lib/train/trainables.ts";
import { pictures, tinySwin } from "../tiny_net.ts";

test("relative rates are shares of a site's range, a 64th of it for probabilities", () => {
  const policy = policyFor("table4", 4);
  const { sites } = calibratedStudent(new Memory(), tinySwin(), policy, pictures(2, 16, 3), 0);
  const relative = trainablesOf(sites, RECIPES.quick);
  const { bound } = RECIPES.quick.rates(4, "table4");
  let [probabilities, others] = [0, 0];
  for (const { name, rate } of relative) {
    const { lower, upper } = sites.bounds.get(name.replace(/\.(lower|upper)$/, ""))!;
    const joint = lower === upper;
    const range = upper.data[joint ? 1 : 0] - lower.data[0];
    expect(rate() / (bound * range), name).toBeCloseTo(joint ? 1 / 64 : 1, 5);
    if (joint) probabilities++;
    else others++;
  }
  expect([probabilities, others]).toEqual([3, 3 * 2 * 15]);
  for (const { rate } of trainablesOf(sites, RECIPES.released)) expect(rate()).toBe(1e-2);
});
