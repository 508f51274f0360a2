// node bench/cuda/frame.mjs MODEL [WIDTH HEIGHT] [--device cuda|cpu] [--runs N]
//
// Milliseconds of one frame end to end: host image in, host image out, on a plan that is recorded and
// warm; and between tensors on the GPU, where a frame does not leave it. Medians. 320x180 unless said.
// Prints one JSON object.
import { parseArgs } from "node:util";
import { native } from "../../dist/lib/binding.js";
import { DeviceMemory, readable } from "../../dist/lib/device.js";
import { openModel } from "../../dist/lib/infer/model.js";
import { TileRunner } from "../../dist/lib/infer/tiles.js";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { device: { type: "string", default: "cuda" }, runs: { type: "string", default: "30" } },
});
const [path, width = "320", height = "180"] = positionals;
const [w, h, runs] = [Number(width), Number(height), Number(values.runs)];
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];

const model = await openModel(path);
const { scale } = model.net.config;
const plan = new TileRunner(model, values.device).plan(w, h, { routing: "sampled", seed: 0 });
const image = Float32Array.from({ length: w * h * 3 }, (_, i) => ((i * 7919) % 256) / 255);
const output = new Float32Array(w * h * 3 * scale * scale);
const host = [];
for (let i = 0; i < runs + 2; i++) {
  const began = performance.now();
  await plan.run(image, undefined, { output });
  if (i >= 2) host.push(performance.now() - began);
}
const result = { device: values.device, width: w, height: h, scale, hostMs: median(host) };
if (values.device === "cuda") {
  const memory = new DeviceMemory();
  const [from, to] = [memory.put(image), memory.put(output)];
  const times = [];
  for (let i = 0; i < runs + 2; i++) {
    const began = performance.now();
    for (let k = 0; k < 10; k++) plan.runOn(from, to);
    readable(to.subarray(0, 1)); // waits for all ten
    if (i >= 2) times.push((performance.now() - began) / 10);
  }
  result.deviceMs = median(times);
  result.same = Buffer.compare(Buffer.from(readable(to).buffer), Buffer.from(output.buffer)) === 0;
  result.peakBytes = native().deviceCounters().peak;
}
console.log(JSON.stringify(result));
