// Full-precision or packed forward of one image size through the native plan; prints one JSON line.
// Usage: node bench/forward.mjs MODEL [WIDTH=320] [HEIGHT=180] [RUNS=5]
import { native } from "../dist/lib/binding.js";
import { openModel } from "../dist/lib/infer/model.js";
import { Plan } from "../dist/lib/infer/plan.js";

const [path, width = "320", height = "180", runs = "5"] = process.argv.slice(2);
const model = await openModel(path);
const plan = new Plan(model.net, model.sites, Number(width), Number(height), { mode: "argmax", seed: 0 });
const image = Float32Array.from({ length: Number(width) * Number(height) * 3 }, (_, i) => 0.5 + 0.4 * Math.sin(i * 0.01));
await plan.run(image);
const seconds = [];
for (let i = 0; i < Number(runs); i++) {
  const began = performance.now();
  await plan.run(image);
  seconds.push((performance.now() - began) / 1000);
}
seconds.sort((a, b) => a - b);
console.log(JSON.stringify({ name: `x${model.net.config.scale} ${width}x${height}`, seconds_median: seconds[seconds.length >> 1],
  seconds_min: seconds[0], threads: native().threads(), isa: native().backendName(), arena_mib: plan.arenaBytes / 2 ** 20 }));
