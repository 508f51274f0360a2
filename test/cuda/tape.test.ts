/**
 * The tape on the GPU, over the host shim: a step gives what the CPU gives, the same bits again, and
 * copies nothing but its input and its losses.
 */
import { describe, expect, test } from "vitest";
import { Graph, releaseGradients, Var } from "../../lib/autograd.ts";
import { describeCuda, type F32, type I32, native } from "../../lib/binding.ts";
import { DeviceMemory, isOnDevice, readable } from "../../lib/device.ts";
import type { Network } from "../../lib/models/network.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { sitesOn } from "../../lib/quant/placement.ts";
import { policyFor, type Scope } from "../../lib/quant/policy.ts";
import { RECIPES, type RecipeName } from "../../lib/quant/recipes.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { Adam } from "../../lib/train/adam.ts";
import { distill } from "../../lib/train/distill.ts";
import { trainablesOf } from "../../lib/train/trainables.ts";
import { random, relativeError } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

const { code, hostMemory } = describeCuda();

function studentOf(net: Network, scope: Scope, bits: number, recipe: RecipeName): Student {
  const shape = { experts: 2, rank: 2 };
  const policy = policyFor(scope, bits);
  const patches = pictures(2, 16, 3);
  const made = createStudent(new Memory(), net, policy, RECIPES[recipe], shape, patches, 0);
  let seed = 50;
  for (const group of made.sites.rectifiers.values()) {
    group.b.data.set(random(group.b.size, seed++, -0.02, 0.02));
    group.logits.data.set(random(group.logits.size, seed++));
  }
  for (const gate of made.sites.gates.values()) gate.w2.data.set(random(gate.w2.size, seed++));
  return made;
}

const placed = ({ net, sites }: Student, memory: Memory): Student => ({
  net: net.on(memory),
  sites: sitesOn({ net, sites }, memory),
});

/** Gradients of one step by trainable, in host memory. */
function step(memory: Memory, teacher: Network, student: Student, recipe: RecipeName) {
  const losses = distill(memory, teacher, student, pictures(2, 16, 5), 1, 3, true);
  const leaves = trainablesOf(student.sites, RECIPES[recipe]);
  const gradients = new Map<string, F32>();
  for (const { name, value } of leaves) {
    if (value.grad) gradients.set(name, Float32Array.from(readable(value.grad)));
  }
  releaseGradients(
    memory,
    leaves.map(({ value }) => value),
  );
  return { losses, gradients };
}

/** Codes of every site, on the routes given (host memory), and the pixels. */
function codesOf(memory: Memory, { net, sites }: Student, routes: readonly (I32 | undefined)[]) {
  const graph = new Graph("running", memory);
  const codes = new Map<string, Uint8Array>();
  sites.tap = (site, value) => codes.set(site, Uint8Array.from(readable(value.codes)));
  const replay = routes.map((classes) => classes && memory.put(classes));
  const low = pictures(1, 16, 9);
  const image = new Var(graph.input(low.data), low.shape);
  const output = net.forward(graph, image, sites, new Router({ replay }));
  sites.tap = null;
  const pixels = Float32Array.from(readable(output.data));
  graph.dispose();
  return { codes, pixels };
}

describe.skipIf(!hostMemory || code !== "OK")("the tape on the shim (npm run test:cuda)", () => {
  const cases: readonly [string, () => Network, Scope, number, RecipeName][] = [
    ["MambaIRv2", tinyNet, "best", 4, "best"],
    ["MambaIRv2", tinyNet, "released", 2, "best"],
    ["MambaIRv2 with input-dependent gates", tinyNet, "table4", 4, "paper"],
    ["SwinIR", tinySwin, "best", 4, "best"],
  ];

  test.each(cases)(
    "%s: losses, gradients and codes are the CPU's",
    (_, make, scope, bits, recipe) => {
      const memory = new DeviceMemory();
      const net = make();
      const host = studentOf(net, scope, bits, recipe);
      const gpu = placed(host, memory);
      const expected = step(new Memory(), net, host, recipe);
      const got = step(memory, net.on(memory), gpu, recipe);
      for (const part of ["loss", "pixel", "feature"] as const) {
        const difference = Math.abs(got.losses[part] - expected.losses[part]);
        expect(difference / expected.losses[part], part).toBeLessThan(1e-5);
      }
      expect([...got.gradients.keys()]).toEqual([...expected.gradients.keys()]);
      const all = (gradients: Map<string, F32>): number[] =>
        [...gradients.values()].flatMap((gradient) => [...gradient]);
      expect(relativeError(all(got.gradients), all(expected.gradients))).toBeLessThan(1e-5);
      for (const [name, gradient] of expected.gradients) {
        // By its own largest entry: bounds' gradients are sums that nearly cancel.
        expect(relativeError(got.gradients.get(name)!, gradient), name).toBeLessThan(1e-3);
      }
      const router = new Router({ mode: "sampled", seed: 5 });
      net.forward(new Graph("running"), pictures(1, 16, 9), new FloatSites(), router);
      const cpu = codesOf(new Memory(), host, router.classes);
      const cuda = codesOf(memory, gpu, router.classes);
      expect([...cuda.codes.keys()]).toEqual([...cpu.codes.keys()]);
      for (const [site, codes] of cpu.codes) expect(cuda.codes.get(site), site).toEqual(codes);
      expect(relativeError(cuda.pixels, cpu.pixels)).toBeLessThan(1e-5);
    },
  );

  test("layers are made again in backward where the memory holds less than the batch needs", () => {
    class Small extends DeviceMemory {
      override get tapeBytes(): number {
        return 1e6;
      }
    }
    const host = studentOf(tinyNet(), "best", 4, "best");
    const launches = (memory: DeviceMemory): number => {
      const [teacher, student] = [tinyNet().on(memory), placed(host, memory)];
      const before = native().deviceCounters().launches;
      distill(memory, teacher, student, pictures(2, 16, 1), 1, 1, true);
      return native().deviceCounters().launches - before;
    };
    expect(launches(new Small())).toBeGreaterThan(launches(new DeviceMemory()));
  });

  test("steps reuse memory, copy one input and one list of losses, and repeat to the bit", () => {
    const host = studentOf(tinyNet(), "best", 4, "best");
    const run = (recompute: boolean) => {
      const memory = new DeviceMemory();
      const [teacher, student] = [tinyNet().on(memory), placed(host, memory)];
      const { beta1, beta2 } = RECIPES.best;
      const settings = { beta1, beta2, epsilon: 1e-8 };
      const adam = new Adam(trainablesOf(student.sites, RECIPES.best), settings, memory);
      const graph = new Graph("running", memory);
      const counters = [0, 1, 2].map((i) => {
        distill(
          memory,
          teacher,
          student,
          pictures(2, 16, i),
          1,
          i,
          true,
          recompute ? 0 : undefined,
        );
        const { launches } = native().deviceCounters();
        adam.step(graph, 1e-3);
        // However many tensors: all of Adam is one kernel, all bounds another.
        expect(native().deviceCounters().launches - launches).toBe(2);
        return native().deviceCounters();
      });
      const [, before, after] = counters;
      expect(after.used).toBe(before.used);
      expect(after.fresh).toBe(before.fresh);
      expect(after.held).toBe(before.held);
      expect(after.uploads - before.uploads).toBe(1);
      expect(after.downloads - before.downloads).toBe(1);
      expect(after.downloaded - before.downloaded).toBe(4 * (1 + 3));
      expect(after.taken - before.taken).toBeGreaterThan(500);
      return adam.state();
    };
    const first = run(false);
    expect(run(false)).toEqual(first);
    // Layers made again in backward: their gradients are added in another order.
    const again = run(true);
    const moments = (state: Map<string, F32>): number[] =>
      [...state].filter(([name]) => name.startsWith("m.")).flatMap(([, m]) => [...m]);
    expect(relativeError(moments(again), moments(first))).toBeLessThan(1e-4);
  });

  test("an element read by host code, or a host array in a call on the GPU, is refused", () => {
    const memory = new DeviceMemory();
    const graph = new Graph("running", memory);
    const x = graph.input(Float32Array.of(1, 2, 3, 4));
    expect(() => x[0]).toThrow(/ERR_INTERNAL|in host memory/);
    const y = graph.floats(4);
    expect(() => graph.run("add", x, new Float32Array(4), y, 4)).toThrow(/in one call/);
    expect(() => graph.run("add", x, x, graph.ints(4) as never, 4)).not.toThrow();
    expect(() => graph.run("add", x, x, graph.bytes(4) as never, 4)).toThrow(
      /no tensor of its kind/,
    );
    graph.run("add", x, x, y, 4);
    expect([...readable(y)]).toEqual([2, 4, 6, 8]);
    graph.dispose();
    expect(() => graph.run("add", x, x, y, 4)).toThrow(/not in use/);
    expect(isOnDevice(y)).toBe(true);
  });
});
