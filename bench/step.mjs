// One RGT step (teacher forward, student forward and backward, Adam) on random crops, and the time
// of each native op in it. Usage: node bench/step.mjs MODEL TRAIN_DIR [BATCH=8] [PATCH=64] [STEPS=5]
import { Graph } from "../dist/lib/autograd.js";
import { native } from "../dist/lib/binding.js";
import { openModel } from "../dist/lib/infer/model.js";
import { policyFor } from "../dist/lib/quant/policy.js";
import { RECIPES } from "../dist/lib/quant/recipes.js";
import { createStudent } from "../dist/lib/quant/student.js";
import { Memory } from "../dist/lib/tensor.js";
import { Adam } from "../dist/lib/train/adam.js";
import { distill } from "../dist/lib/train/distill.js";
import { PatchSource } from "../dist/lib/train/patches.js";
import { trainablesOf } from "../dist/lib/train/trainables.js";

const [path, folder, batch = "8", patch = "64", steps = "5"] = process.argv.slice(2);
const model = await openModel(path);
const memory = new Memory();
const source = await PatchSource.open(folder, model.net.config.scale, Number(patch));
const recipe = RECIPES.best;
const calibration = source.draw(2, Number(patch), 0, 1).low;
const shape = { experts: 4, rank: 8 };
const student = createStudent(memory, model.net, policyFor("best", 4), recipe, shape, calibration, 0);
const adam = new Adam(trainablesOf(student.sites, recipe), { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 });
const graph = new Graph("running", memory);

const spent = new Map();
Graph.prototype.run = (op, ...operands) => {
  const began = performance.now();
  native()[op](...operands);
  spent.set(op, (spent.get(op) ?? 0) + performance.now() - began);
};
const seconds = [];
for (let i = 0; i <= Number(steps); i++) {
  if (i === 1) spent.clear(); // the first step fills the memory pool
  const { low } = source.draw(Number(batch), Number(patch), 0, i);
  const began = performance.now();
  distill(memory, model.net, student, low, recipe.featureWeight, i, true);
  adam.step(graph, 1e-9);
  if (i > 0) seconds.push((performance.now() - began) / 1000);
}
seconds.sort((a, b) => a - b);
console.log(`step: median ${seconds[seconds.length >> 1].toFixed(3)} s, min ${seconds[0].toFixed(3)} s, ` +
  `peak of tensors ${(memory.peakBytes / 2 ** 30).toFixed(2)} GiB, max RSS ${(process.resourceUsage().maxRSS / 2 ** 20).toFixed(2)} GiB`);
for (const [op, time] of [...spent].sort((a, b) => b[1] - a[1]).slice(0, 12)) {
  console.log(`${op.padEnd(26)}${(time / Number(steps)).toFixed(1).padStart(9)} ms`);
}
