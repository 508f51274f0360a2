/** Whole images on the tape come out as from the frozen plan. */
import { expect, test } from "vitest";
import { upscaleRgb } from "../../lib/infer/evaluate.ts";
import { upscaleOnTape } from "../../lib/infer/tape.ts";
import { TileRunner } from "../../lib/infer/tiles.ts";
import { fromRgbFloat } from "../../lib/io/png.ts";
import { Memory } from "../../lib/tensor.ts";
import { asModel, pictures, tinyNet, tinySwin } from "../tiny_net.ts";

for (const [name, make] of [
  ["MambaIRv2", tinyNet],
  ["SwinIR", tinySwin],
] as const) {
  test(`${name}: sides that are no multiple of the window are mirrored and cropped alike`, async () => {
    const model = asModel(make());
    const lr = fromRgbFloat(pictures(1, 24, 5).data.subarray(0, 24 * 13 * 3), 24, 13, 8);
    const routing = { routing: "sampled", seed: 3 } as const;
    const tape = upscaleOnTape(new Memory(), model, lr, routing);
    const plan = await upscaleRgb(new TileRunner(model), lr, { ...routing, tiling: "none" });
    expect([tape.width, tape.height]).toEqual([48, 26]);
    expect(tape.data).toEqual(plan.data);
  });
}
