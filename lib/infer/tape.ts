/**
 * A whole image through the tape instead of a frozen plan: for networks that no file can hold, such
 * as one whose gates look at the image.
 */
import { Graph, Var } from "../autograd.ts";
import { fromRgbFloat, type RasterImage, toRgbFloat } from "../io/png.ts";
import { Router } from "../nn/routing.ts";
import { floats, type Memory } from "../tensor.ts";
import { floatPixels } from "./mirror.ts";
import type { Model } from "./model.ts";
import { framed, layoutOf, type Routing } from "./tiles.ts";

/** `lr` upscaled as one tile, mirrored and cropped as plans do it; 8-bit RGB. */
export function upscaleOnTape(
  memory: Memory,
  { net, sites }: Pick<Model, "net" | "sites">,
  lr: RasterImage,
  { routing: mode, seed }: Routing,
): RasterImage {
  const { width, height } = lr;
  const { rows, columns } = layoutOf(net, width, height, "none");
  const [wide, high] = [columns[0].to, rows[0].to];
  const numbers = (count: number): Int32Array<ArrayBuffer> =>
    Int32Array.from({ length: count }, (_, i) => i);
  const data = Float32Array.from(toRgbFloat(lr));
  const input = floats(wide * high * 3);
  framed(net, floatPixels({ data, width, height })).read(numbers(wide), numbers(high), input);
  const graph = new Graph("running", memory);
  const image = new Var(input, [1, high, wide, 3]);
  const output = net.forward(graph, image, sites, new Router({ mode, seed }));
  const { scale } = net.config;
  const kept = new Float32Array(width * height * 3 * scale * scale);
  for (let y = 0; y < height * scale; y++) {
    const from = y * wide * scale * 3;
    kept.set(output.data.subarray(from, from + width * scale * 3), y * width * scale * 3);
  }
  graph.dispose();
  return fromRgbFloat(kept, width * scale, height * scale, 8);
}
