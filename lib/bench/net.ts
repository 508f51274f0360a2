/**
 * Suite `net`: one network of 180x320 pixels as our full-precision plan and as packed plans of 4
 * and 2 bits, against each other.
 */
import { native } from "../binding.ts";
import type { Plan } from "../infer/plan.ts";
import {
  bundledModel,
  type Family,
  familyOf,
  officialWeights,
  planOf,
  testPicture,
} from "./models.ts";
import { factRow, type Goal, NO_GOAL, timeRow } from "./rows.ts";
import { onBackend, type Suite, timing } from "./suite.ts";
import { interleave, type Side } from "./timing.ts";

/** LR pixels of a 1280x720 result at x4. */
export const NET_WIDTH = 320;
export const NET_HEIGHT = 180;

const GOALS: ReadonlyMap<number, Goal> = new Map([
  [4, { floor: 1.8, stretch: 3.44 }],
  [2, { floor: 1.8, stretch: 4.15 }],
]);

/** The goals are for x4; a bundled model of another size gets none. */
const GOAL_SCALE = 4;

async function pickFamily(suite: Suite): Promise<Family> {
  const bits = [...GOALS.keys()];
  const official = officialWeights(suite, GOAL_SCALE);
  const path = suite.model ?? official;
  if (path) return familyOf(suite, path, bits, true);
  suite.say("no --model and no test data: the bundled tiny x2 model stands in, without goals");
  return familyOf(suite, bundledModel(), bits, false);
}

/** Runs the suite. */
export async function benchNet(suite: Suite): Promise<void> {
  const family = await pickFamily(suite);
  const image = testPicture(NET_WIDTH, NET_HEIGHT);
  const prepare = onBackend(suite.threads, native().backends()[0]);
  const bits = [...family.packed.keys()];
  const plans = [family.float, ...family.packed.values()].map((runnable) =>
    planOf(runnable, NET_WIDTH, NET_HEIGHT),
  );
  const labels = ["FP32", ...bits.map((width) => `W${width}A${width}`)];
  const run =
    (plan: Plan): (() => Promise<unknown>) =>
    () =>
      plan.run(image, suite.signal);
  const sides: Side[] = plans.map((plan) => ({ prepare, run: run(plan) }));
  const one = onBackend(1, native().backends()[0]);
  if (suite.threads > 1) {
    sides.push(...plans.map((plan): Side => ({ prepare: one, run: run(plan) })));
  }
  const timings = await interleave(sides, timing(suite));
  const size = `${NET_HEIGHT}x${NET_WIDTH}`;
  const threads = `${suite.threads} thread${suite.threads > 1 ? "s" : ""}`;
  const named = (label: string): string => `${family.name} ${size} ${label}, ${threads}`;
  bits.forEach((width, i) => {
    const hasGoal = family.official && family.float.net.config.scale === GOAL_SCALE;
    const goal = (hasGoal && GOALS.get(width)) || NO_GOAL;
    const text = { name: named(labels[i + 1]), against: "own FP32 plan" };
    suite.row(timeRow(text, timings[i + 1], timings[0], goal));
  });
  labels.forEach((label, i) => {
    if (suite.threads > 1) {
      const text = { name: named(label), against: "itself on 1 thread" };
      suite.row(timeRow(text, timings[i], timings[plans.length + i]));
    }
    const mebibytes = plans[i].arenaBytes / 2 ** 20;
    suite.row(factRow(`${family.name} ${size} ${label}: arena`, "MiB", mebibytes));
  });
  if (suite.profile) for (const [i, plan] of plans.entries()) await profile(suite, labels[i], plan);
}

/** Time of one run by kind of step, the largest first; medians over the suite's runs. */
async function profile(suite: Suite, label: string, plan: Plan): Promise<void> {
  const image = testPicture(plan.width, plan.height);
  onBackend(suite.threads, native().backends()[0])();
  const total = new Map<string, { seconds: number; calls: number }>();
  const seconds = new Float64Array(plan.steps.length);
  await plan.run(image, suite.signal);
  for (let run = 0; run < suite.runs; run++) {
    await plan.run(image, suite.signal, { seconds });
    plan.steps.forEach((step, i) => {
      const entry = total.get(step) ?? { seconds: 0, calls: 0 };
      entry.seconds += seconds[i] / suite.runs;
      entry.calls += 1 / suite.runs;
      total.set(step, entry);
    });
  }
  const all = [...total.values()].reduce((sum, entry) => sum + entry.seconds, 0);
  suite.say(`${label}: ${(all * 1000).toFixed(1)} ms in ${plan.steps.length} steps`);
  for (const [step, entry] of [...total].sort((a, b) => b[1].seconds - a[1].seconds)) {
    if (entry.seconds < all / 500) continue;
    const share = `${((100 * entry.seconds) / all).toFixed(1)} %`.padStart(7);
    const time = (entry.seconds * 1000).toFixed(2).padStart(9);
    suite.say(`${time} ms ${share} ${String(Math.round(entry.calls)).padStart(4)} x  ${step}`);
  }
}
