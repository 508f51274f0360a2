/**
 * The tape on the GPU, over the host shim: tensors live on the device, results are those of the CPU
 * within float rounding, bits are those of a rerun, and a step copies nothing but its inputs and its
 * losses.
 */
import { describe, expect, test } from "vitest";
import { Var } from "../../lib/autograd.ts";
import { describeCuda, native, type F32, type I32 } from "../../lib/binding.ts";
import { DeviceMemory, readable } from "../../lib/device.ts";
import type { Network } from "../../lib/models/network.ts";
import { packStudent } from "../../lib/quant/pack.ts";
import { sitesOn } from "../../lib/quant/placement.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { Adam } from "../../lib/train/adam.ts";
import { distill } from "../../lib/train/distill.ts";
import { trainablesOf } from "../../lib/train/trainables.ts";
import { random, relativeError } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

const shim = describeCuda().hostMemory && describeCuda().code === "OK";

describe.skipIf(!shim)("the tape on the shim (npm run test:cuda)", () => {
  test("a step", () => {
    const memory = new DeviceMemory();
    const net = tinyNet();
    const host = createStudent(
      new Memory(),
      net,
      policyFor("best", 4),
      RECIPES.best,
      { experts: 2, rank: 2 },
      pictures(2, 32, 3),
      0,
    );
    const placed: Student = { net: host.net.on(memory), sites: sitesOn(host.sites, memory) };
    const low = pictures(2, 16, 5);
    let t = performance.now();
    const a = distill(new Memory(), net, host, low, 1, 3, true);
    console.log("cpu", performance.now() - t, a);
    t = performance.now();
    const b = distill(memory, net.on(memory), placed, low, 1, 3, true);
    console.log("shim", performance.now() - t, b, native().deviceCounters());
  });
});
