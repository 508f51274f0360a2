/** Quality of a student while it is trained, on a crop that training does not draw. */
import { Graph } from "../autograd.ts";
import { fromRgbFloat } from "../io/png.ts";
import { psnrY } from "../metrics/psnr.ts";
import { Router } from "../nn/routing.ts";
import type { Student } from "../quant/student.ts";
import type { Memory } from "../tensor.ts";
import type { PatchSource } from "./patches.ts";

/** dB on the luma of a crop that training never draws, against the HR image. */
export function heldOutQuality(
  memory: Memory,
  student: Student,
  source: PatchSource,
  patch: number,
): number {
  const { low, high } = source.heldOut(patch);
  student.sites.samples = 1;
  const graph = new Graph("running", memory);
  const output = student.net.forward(
    graph,
    low,
    student.sites,
    new Router({ mode: "sampled", seed: 0 }),
  );
  const [, height, width] = high.shape;
  const psnr = psnrY(
    fromRgbFloat(output.data, width, height, 8),
    fromRgbFloat(high.data, width, height, 8),
    source.scale,
  );
  graph.dispose();
  return psnr;
}
