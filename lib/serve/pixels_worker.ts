/** The thread of pixels.ts: one task after another, samples handed over without a copy. */
import { parentPort } from "node:worker_threads";
import { Spr2qError } from "../errors.ts";
import { fillTransparent, hasAlpha } from "../infer/alpha.ts";
import { atOnce } from "../io/pause.ts";
import { decodeImage, outlineBytes } from "../io/pictures.ts";
import type { ImageShape } from "../io/png.ts";
import { type RasterImage, roundHalfEven } from "../io/raster.ts";
import { bicubicResize, bicubicResizeFloat } from "../metrics/resize.ts";
import type { PixelAnswer, PixelTask } from "./pixels.ts";

/** The server's own limit of pixels was held before; headers beyond any limit are still refused. */
function work(task: PixelTask): Promise<RasterImage | ImageShape> | RasterImage {
  if (task.kind === "outline") {
    return outlineBytes(task.bytes, task.name, { maxSamples: Number.MAX_SAFE_INTEGER });
  }
  if (task.kind === "decode") return decodeImage(task.bytes, task.name);
  return bicubic(task.image, task.scale);
}

function bicubic(image: RasterImage, scale: number): RasterImage {
  const visible = hasAlpha(image) ? atOnce(fillTransparent(image)) : image;
  const { width, height, channels, depth } = visible;
  if (visible.data instanceof Uint8Array) {
    const large = bicubicResize(visible.data, width, height, channels, scale);
    return { ...large, channels, depth };
  }
  const floats = Float32Array.from(visible.data);
  const { data, ...size } = bicubicResizeFloat(floats, width, height, channels, scale);
  const samples = Uint16Array.from(data, (v) => roundHalfEven(Math.min(Math.max(v, 0), 65535)));
  return { ...size, channels, depth, data: samples };
}

parentPort?.on("message", async ({ id, task }: { id: number; task: PixelTask }) => {
  let answer: PixelAnswer;
  try {
    answer = { id, value: await work(task) };
  } catch (error) {
    const code = error instanceof Spr2qError ? error.code : null;
    answer = { id, code, message: error instanceof Error ? error.message : String(error) };
  }
  const data = "value" in answer && "data" in answer.value ? answer.value.data : null;
  parentPort?.postMessage(answer, data ? [data.buffer as ArrayBuffer] : []);
});
