/** Every method on every network that it is defined on: ends in a file, resumes to the bit, n bits. */
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { Graph } from "../../lib/autograd.ts";
import { openModel } from "../../lib/infer/model.ts";
import { TileRunner } from "../../lib/infer/tiles.ts";
import {
  type QuantizeOptions,
  type QuantizeResult,
  quantizeModel,
} from "../../lib/methods/quantize.ts";
import { METHODS } from "../../lib/methods/registry.ts";
import type { Network } from "../../lib/models/network.ts";
import { Router } from "../../lib/nn/routing.ts";
import { Memory } from "../../lib/tensor.ts";
import type { TrainEvent } from "../../lib/train/events.ts";
import { asModel, pictures, tinyNet, tinySwin, writePictures } from "../tiny_net.ts";

let root = "";

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "spr2q-methods-"));
  await writePictures(join(root, "train"), 4, 64);
});

const NETWORKS: Readonly<Record<string, () => Network>> = { mambairv2: tinyNet, swinir: tinySwin };

function options(method: string, out: string, more: Partial<QuantizeOptions>): QuantizeOptions {
  const sizes = { rank: 2, rectifiers: 2, iterations: 12, osrc: 5, batch: 2, patch: 16 };
  const common = { bits: 2, train: join(root, "train"), seed: 7, version: "0.0.0" };
  return { method, out: join(root, out), ...common, ...sizes, ...more };
}

interface Run {
  readonly result: QuantizeResult;
  readonly events: readonly TrainEvent[];
}

async function run(
  make: () => Network,
  settings: QuantizeOptions,
  each: (event: TrainEvent) => void = () => {},
): Promise<Run> {
  const events: TrainEvent[] = [];
  const steps = quantizeModel(asModel(make()), settings);
  let step = await steps.next();
  for (; !step.done; step = await steps.next()) {
    events.push(step.value);
    each(step.value);
  }
  return { result: step.value, events };
}

for (const method of METHODS) {
  describe.each(method.architectures)(`${method.name} on %s`, (architecture) => {
    const make = NETWORKS[architecture];
    const name = `${method.name}-${architecture}`;

    test("stopped in any stage and resumed, it ends in the bytes of a run that was not", async () => {
      const whole = await run(make, options(method.name, `${name}-whole`, {}));
      const bytes = await readFile(whole.result.model);
      const stages = new Set(whole.events.filter((e) => e.type === "stage").map((e) => e.stage));
      for (const stage of stages) {
        const stop = new AbortController();
        const out = `${name}-${stage}`;
        const halted = run(
          make,
          options(method.name, out, { signal: stop.signal }),
          (event) =>
            event.type === "step" && event.stage === stage && event.iteration === 3 && stop.abort(),
        );
        await expect(halted).rejects.toMatchObject({ code: "ERR_ABORTED" });
        const again = await run(make, options(method.name, out, { resume: true }));
        expect(await readFile(again.result.model)).toEqual(bytes);
      }
      expect(whole.events.at(-1)?.type).toBe("done");
    });

    test("its file says how it was made, and runs as the student that was trained", async () => {
      for (const bits of [4, 1]) {
        const out = `${name}-${bits}`;
        const { result } = await run(make, options(method.name, out, { bits, scope: "released" }));
        const model = await openModel(result.model);
        expect(model.metadata).toMatchObject({ method: method.name, bits: `${bits}`, seed: "7" });
        const image = pictures(1, 24, 9);
        const graph = new Graph("running", new Memory());
        const { net, sites } = result.student;
        let coded = 0;
        sites.tap = (_, codes) => {
          expect(new Set(codes.codes).size).toBeLessThanOrEqual(2 ** bits);
          coded++;
        };
        sites.samples = 1;
        const wanted = net.forward(graph, image, sites, new Router({ mode: "sampled", seed: 5 }));
        expect(coded).toBeGreaterThan(30);
        const runner = new TileRunner(model);
        const plan = runner.plan(24, 24, { routing: "sampled", seed: 5 });
        expect(await plan.run(image.data)).toEqual(Float32Array.from(wanted.data));
      }
    });
  });
}

test("a method on a network that it is not defined on is ERR_ARGUMENT", async () => {
  for (const method of METHODS) {
    for (const [architecture, make] of Object.entries(NETWORKS)) {
      if (method.architectures.includes(architecture)) continue;
      const refused = run(make, options(method.name, "refused", {}));
      await expect(refused).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
    }
  }
  const unknown = run(tinyNet, options("nonesuch", "refused", {}));
  await expect(unknown).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
});

test("--device cuda is refused for methods that need host memory, before a GPU is asked for", async () => {
  for (const { name, onGpu, architectures } of METHODS) {
    if (onGpu) continue;
    const settings = options(name, "gpu", { device: "cuda", iterations: 0 });
    const refused = run(NETWORKS[architectures[0]], settings);
    await expect(refused).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
  }
});

test("leads are refused where a method has quantisers of its own", async () => {
  for (const { name, takesLeads, architectures } of METHODS) {
    if (takesLeads) continue;
    const settings = options(name, "leads", { scope: "best", iterations: 0 });
    const refused = run(NETWORKS[architectures[0]], settings);
    await expect(refused).rejects.toMatchObject({ code: "ERR_ARGUMENT" });
  }
});
