/** What a training run starts from. */
import { describe, expect, test } from "vitest";
import { Graph, type Var } from "../../lib/autograd.ts";
import { bicubicResize } from "../../lib/metrics/resize.ts";
import { MAMBAIRV2 } from "../../lib/models/mambairv2.ts";
import type { Network } from "../../lib/models/network.ts";
import { FloatSites } from "../../lib/models/sites.ts";
import { SWINIR } from "../../lib/models/swinir.ts";
import { Router } from "../../lib/nn/routing.ts";
import { initialise } from "../../lib/train/pretrain.ts";
import { continuing, interpolating } from "../../lib/train/start.ts";
import { pictures, TINY, TINY_SWIN } from "../tiny_net.ts";

const SIDE = 16;
const small = pictures(1, SIDE, 3);

function upscaled(net: Network, image: Var = small): Float32Array {
  const router = new Router({ mode: "argmax", gradient: "straight-through" });
  return net.forward(new Graph("running"), image, new FloatSites(), router).data;
}

/** Mean square difference of the samples that lie two LR pixels or more away from the border. */
function error(a: Float32Array, b: Float32Array, side: number, border: number): number {
  let [sum, count] = [0, 0];
  for (let y = border; y < side - border; y++) {
    for (let k = (y * side + border) * 3; k < (y * side + side - border) * 3; k++) {
      sum += (a[k] - b[k]) ** 2;
      count++;
    }
  }
  return sum / count;
}

const fresh = (name: string, scale: number): Network =>
  name === "mambairv2"
    ? initialise(MAMBAIRV2, { ...TINY, scale }, 1)
    : initialise(SWINIR, { ...TINY_SWIN, scale }, 1);

describe.each(["mambairv2", "swinir"])("%s", (name) => {
  test.each([2, 3, 4])("a fresh network for x%i interpolates as bicubic does", (scale) => {
    const bytes = Uint8Array.from(small.data, (value) => Math.round(value * 255));
    const wanted = Float32Array.from(
      bicubicResize(bytes, SIDE, SIDE, 3, scale).data,
      (value) => value / 255,
    );
    const side = SIDE * scale;
    const net = fresh(name, scale);
    const before = error(upscaled(net), wanted, side, 2 * scale);
    interpolating(net);
    const after = error(upscaled(net), wanted, side, 2 * scale);
    expect(after).toBeLessThan(before / 15);

    // Without what is left of the drawn weights: only the fourth tap of the kernel is missing.
    const { data: last, shape } = net.weights.get("upsample.0.weight")!;
    for (let i = 0; i < last.length; i++) if (Math.floor(i / 9) % shape[1] >= 3) last[i] = 0;
    net.weights.get("conv_after_body.weight")!.data.fill(0, 0, 27 * shape[1]);
    expect(error(upscaled(net), wanted, side, 2 * scale)).toBeLessThan(5e-5);
  });

  test.each([
    [2, 4],
    [2, 3],
    [4, 2],
    [2, 2],
  ])("what was trained for x%i starts x%i with its nearest pixels", (before, scale) => {
    const trained = fresh(name, before);
    const net = fresh(name, scale);
    continuing(net, trained, "trained.safetensors");
    const [old, now] = [upscaled(trained), upscaled(net)];
    const [from, side] = [SIDE * before, SIDE * scale];
    const place = (at: number): number =>
      Math.floor(at / scale) * before + Math.floor(((at % scale) * before) / scale);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const at = (place(y) * from + place(x)) * 3;
        for (let c = 0; c < 3; c++) {
          expect(now[(y * side + x) * 3 + c]).toBeCloseTo(old[at + c], 5);
        }
      }
    }
  });
});

test("a network of other sizes is refused with both", () => {
  const wide = initialise(MAMBAIRV2, { ...TINY, hidden: 24 }, 1);
  const refused = (): void => continuing(fresh("mambairv2", 2), wide, "wide.safetensors");
  expect(refused).toThrow(/wide\.safetensors.*"hidden":16.*"hidden":24/);
  expect(refused).toThrow(expect.objectContaining({ code: "ERR_CHECKPOINT" }));
  const swin = (): void => continuing(fresh("mambairv2", 2), fresh("swinir", 2), "s.safetensors");
  expect(swin).toThrow(expect.objectContaining({ code: "ERR_CHECKPOINT" }));
});
