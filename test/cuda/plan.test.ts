/**
 * Frozen plans on the GPU, over the host shim: recorded once, replayed with the tape's pixels, for
 * every tile, from host images and between tensors on the GPU.
 */
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Graph, Var } from "../../lib/autograd.ts";
import { describeCuda, type F32, native } from "../../lib/binding.ts";
import { command as evaluate } from "../../lib/cli/commands/eval.ts";
import { command as upscale } from "../../lib/cli/commands/upscale.ts";
import { DeviceMemory, readable } from "../../lib/device.ts";
import { Plan } from "../../lib/infer/plan.ts";
import { Upscaler } from "../../lib/infer/upscaler.ts";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import { readSafetensors } from "../../lib/io/safetensors.ts";
import type { Network } from "../../lib/models/network.ts";
import { FloatSites, type Sites } from "../../lib/models/sites.ts";
import { Router } from "../../lib/nn/routing.ts";
import { packStudent, unpackModel } from "../../lib/quant/pack.ts";
import { sitesOn } from "../../lib/quant/placement.ts";
import { policyFor, type Scope } from "../../lib/quant/policy.ts";
import { RECIPES } from "../../lib/quant/recipes.ts";
import { createStudent, type Student } from "../../lib/quant/student.ts";
import { Memory } from "../../lib/tensor.ts";
import { picture, runCommand, writePackedModel } from "../cli/tiny_model.ts";
import { relativeError } from "../ops/harness.ts";
import { pictures, tinyNet, tinySwin } from "../tiny_net.ts";

const { code, hostMemory } = describeCuda();
const SIDE = 16;
const routing = { mode: "sampled", seed: 5 } as const;

function packed(net: Network, scope: Scope, bits: number): Student {
  const shape = { experts: 0, rank: 0 };
  const policy = policyFor(scope, bits);
  const patches = pictures(1, SIDE, 3);
  const student = createStudent(new Memory(), net, policy, RECIPES.best, shape, patches, 0);
  const { tensors, metadata } = readSafetensors(packStudent(student, {}), "packed");
  return unpackModel(tensors, metadata, "packed");
}

/** The tape's pixels on the GPU. */
function onTape(net: Network, sites: Sites, image: Var, tile = 0): F32 {
  const memory = new DeviceMemory();
  const graph = new Graph("running", memory);
  const low = new Var(graph.input(image.data), image.shape);
  const router = new Router({ ...routing, tile });
  const pixels = readable(net.on(memory).forward(graph, low, sites, router).data);
  router.release();
  graph.dispose();
  return pixels;
}

describe.skipIf(!hostMemory || code !== "OK")("plans on the shim (npm run test:cuda)", () => {
  const cases: readonly [string, () => Network, Scope, number][] = [
    ["MambaIRv2", tinyNet, "best", 4],
    ["MambaIRv2", tinyNet, "released", 1],
    ["SwinIR", tinySwin, "best", 2],
  ];

  test.each(cases)("%s: the tape's pixels, tile by tile", async (_, make, scope, bits) => {
    const { net, sites } = packed(make(), scope, bits);
    const placed = sitesOn({ net, sites }, new DeviceMemory());
    const image = pictures(1, SIDE, 9);
    const plan = new Plan(net, sites, SIDE, SIDE, routing, true, "cuda");
    const wanted = onTape(net, placed, image);
    expect(await plan.run(image.data)).toEqual(wanted);
    const before = native().deviceCounters();
    expect(await plan.run(image.data)).toEqual(wanted); // replayed
    expect(native().deviceCounters()).toEqual(before);
    const other = onTape(net, placed, image, 70_000);
    const both = [undefined, undefined, { noiseTile: 70_000 }].map((settings) =>
      plan.run(image.data, undefined, settings),
    );
    expect(await Promise.all(both)).toEqual([wanted, wanted, other]);
    if (net.architecture.routes && bits === 4) expect(other).not.toEqual(wanted);
    const cpu = await new Plan(net, sites, SIDE, SIDE, routing).run(image.data);
    expect(relativeError(wanted, cpu)).toBeLessThan(1e-4);
  });

  test("a run between tensors on the GPU, queued behind the ops that make its input", async () => {
    const net = tinyNet();
    const image = pictures(1, SIDE, 9);
    const plan = new Plan(net, new FloatSites(), SIDE, SIDE, routing, true, "cuda");
    const graph = new Graph("running", new DeviceMemory());
    const half = graph.input(image.data.map((value) => value / 2));
    const [input, output] = [graph.floats(half.length), graph.floats(half.length * 4)];
    graph.run("add", half, half, input, half.length);
    plan.runOn(input, output);
    expect(readable(output)).toEqual(await plan.run(image.data));
    plan.runOn(input, output, 70_000);
    expect(readable(output)).toEqual(onTape(net, new FloatSites(), image, 70_000));
    expect(() => plan.runOn(image.data, output)).toThrow(/on the GPU/);
    expect(() => plan.runOn(half.subarray(16), output)).toThrow(/of the plan's size/);
  });

  test("an aborted run and a timed one are refused, the plan goes on", async () => {
    const plan = new Plan(tinySwin(), new FloatSites(), 8, 8, routing, true, "cuda");
    const image = pictures(1, 8, 4).data;
    const stop = new AbortController();
    const running = plan.run(image, stop.signal);
    stop.abort();
    await running.catch((error) => expect(error).toMatchObject({ code: "ERR_ABORTED" }));
    const timed = plan.run(image, undefined, { seconds: new Float64Array(1000) });
    await expect(timed).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
    expect((await plan.run(image)).every(Number.isFinite)).toBe(true);
  });

  test("Upscaler, upscale and eval run there when asked to, and only then", async () => {
    const folder = await mkdtemp(join(tmpdir(), "spr2q-cuda-plan-"));
    const model = await writePackedModel(folder, policyFor("best", 4));
    using cpu = await Upscaler.load(model); // the shim is no GPU for "auto"
    using gpu = await Upscaler.load(model, { device: "cuda" });
    expect([cpu.device, gpu.device]).toEqual(["cpu", "cuda"]);
    const image = picture(24, 16);
    const [a, b] = [await cpu.run(image, { tile: 16 }), await gpu.run(image, { tile: 16 })];
    const apart = [...a.data].map((value, i) => Math.abs(value - b.data[i]));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1); // a value on the edge between two samples
    await writeFile(join(folder, "in.png"), encodePng(image));
    const out = join(folder, "out.png");
    const argv = [join(folder, "in.png"), "-o", out, "--model", model, "--tile", "16", "--json"];
    const { out: text } = await runCommand(upscale, [...argv, "--device", "cuda"]);
    expect(JSON.parse(text)).toMatchObject({ device: "cuda", backend: "cuda" });
    expect(decodePng(await readFile(out), out).data).toEqual(b.data);
    await mkdir(join(folder, "hr"));
    await writeFile(join(folder, "hr", "one.png"), encodePng(picture(32, 32)));
    const psnr = async (device: string): Promise<number> => {
      const options = ["--model", model, "--hr", join(folder, "hr"), "--device", device, "--json"];
      const result = JSON.parse((await runCommand(evaluate, options)).out);
      expect(result.device).toBe(device);
      return result.psnr;
    };
    expect(await psnr("cuda")).toBeCloseTo(await psnr("cpu"), 2);
  });
});
