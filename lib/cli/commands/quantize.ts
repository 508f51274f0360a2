/** `spr2q quantize`: a full-precision model to 8, 4, 2 or 1 bit by SPR2Q or another method. */
import type { DeviceChoice } from "../../device.ts";
import { expected } from "../../errors.ts";
import { openModel } from "../../infer/model.ts";
import type { Scope } from "../../quant/policy.ts";
import type { GateKind, RecipeName, Tuning } from "../../quant/recipes.ts";
import { METHODS } from "../../methods/registry.ts";
import { quantizeModel, type QuantizeResult } from "../../methods/quantize.ts";
import { defineCommand } from "../args.ts";
import { writeQuantizeReport } from "../quantize_report.ts";
import { deviceOption } from "../run_options.ts";
import { packageVersion } from "../../binding.ts";

/** The bits that the packed format knows. */
const BITS = [8, 4, 2, 1];

function switchOf(value: string | number): boolean | undefined {
  return value === "auto" ? undefined : value === "on";
}

/** The options as they would be typed again; those at their defaults are left out. */
function commandOf(options: Readonly<Record<string, unknown>>): string {
  const defaults = new Map<string, unknown>([
    ["method", "spr2q"],
    ["rank", 8],
    ["rectifiers", 4],
    ["device", "auto"],
    ["half-exponent", "auto"],
    ["offsets", "auto"],
    ["row-bounds", "auto"],
  ]);
  const words = Object.entries(options).flatMap(([name, value]) => {
    if (value === undefined || value === false || value === defaults.get(name)) return [];
    if (name === "resume" || COMMON.has(name)) return [];
    if (value === true) return [`--${name}`];
    const text = `${value}`;
    return [`--${name} ${/[^\w./:=-]/.test(text) ? JSON.stringify(text) : text}`];
  });
  return words.join(" ");
}

/** Options that change what is printed, not what is made. */
const COMMON: ReadonlySet<string> = new Set(["json", "quiet", "help"]);

export const command = defineCommand({
  name: "quantize",
  summary: "quantise a network's weights and activations to 8, 4, 2 or 1 bit",
  usage: "--model FP --bits 8|4|2|1 --train DIR --out DIR",
  options: [
    {
      name: "model",
      type: "string",
      required: true,
      value: "FILE",
      help: "full-precision .pth or .safetensors",
    },
    {
      name: "bits",
      type: "integer",
      required: true,
      help: "bits of weights and activations: 8, 4, 2 or 1",
    },
    {
      name: "train",
      type: "string",
      required: true,
      value: "DIR",
      help: "folder of HR PNGs for calibration and training",
    },
    {
      name: "out",
      type: "string",
      required: true,
      value: "DIR",
      help: "folder for model, table, log and report",
    },
    {
      name: "recipe",
      type: "choice",
      choices: ["best", "quick", "paper", "released"],
      help: "schedule, rates and losses (default: the method's own; spr2q: best)",
    },
    {
      name: "scope",
      type: "choice",
      choices: ["best", "table4", "released"],
      help: "which sites are quantised (default: spr2q best, the others table4)",
    },
    {
      name: "method",
      type: "choice",
      choices: METHODS.map(({ name }) => name),
      default: "spr2q",
      help: "quantisation method",
    },
    { name: "rank", type: "integer", min: 1, max: 64, default: 8, help: "rank of a rectifier" },
    {
      name: "rectifiers",
      type: "integer",
      min: 0,
      max: 32,
      default: 4,
      help: "rectifiers a layer; 0 trains bounds only, 1 is PQFR",
    },
    {
      name: "gate",
      type: "choice",
      choices: ["static", "dynamic", "uniform"],
      help: "gates of the rectifiers in RGT; uniform is a control (default: the recipe's)",
    },
    {
      name: "tune",
      type: "choice",
      choices: ["rectifiers", "weights"],
      help: "what moves a layer's weight; weights is a control (default: the recipe's)",
    },
    {
      name: "candidates",
      type: "integer",
      min: 1,
      max: 64,
      help: "places looked at for each patch; the one with most detail is taken (default: the recipe's)",
    },
    {
      name: "iterations",
      type: "integer",
      min: 0,
      max: 10_000_000,
      help: "RGT steps (default: the recipe's)",
    },
    {
      name: "osrc",
      type: "integer",
      min: 0,
      max: 10_000_000,
      help: "OSRC steps (default: the recipe's)",
    },
    {
      name: "batch",
      type: "integer",
      min: 1,
      max: 256,
      help: "patches a step (default: the recipe's)",
    },
    {
      name: "patch",
      type: "integer",
      min: 16,
      max: 512,
      help: "LR pixels a side of a patch (default: the recipe's)",
    },
    {
      name: "seed",
      type: "integer",
      min: 0,
      max: 2147483647,
      default: 0,
      help: "seed of everything random",
    },
    {
      name: "half-exponent",
      type: "choice",
      choices: ["auto", "on", "off"],
      default: "auto",
      help: "softmax codes as half exponents (auto: on in scope best)",
    },
    {
      name: "offsets",
      type: "choice",
      choices: ["auto", "on", "off"],
      default: "auto",
      help: "activation offsets per channel",
    },
    {
      name: "row-bounds",
      type: "choice",
      choices: ["auto", "on", "off"],
      default: "auto",
      help: "weight bounds per output channel",
    },
    deviceOption,
    {
      name: "condition",
      type: "boolean",
      help: "condition the weights first, as CondiQuant does (spr2q)",
    },
    {
      name: "test",
      type: "string",
      value: "DIR",
      help: "folder of HR PNGs on which the report compares the result (Set5, Urban100)",
    },
    { name: "test-lr", type: "string", value: "DIR", help: "their LR twins (default: bicubic)" },
    { name: "resume", type: "boolean", help: "go on from OUT/checkpoint.safetensors" },
  ],
  async run(ctx) {
    const { options } = ctx;
    if (!BITS.includes(options.bits)) {
      throw expected("ERR_ARGUMENT", "--bits", "8, 4, 2 or 1", `${options.bits}`);
    }
    const model = await openModel(options.model);
    const run = quantizeModel(model, {
      bits: options.bits,
      train: options.train,
      out: options.out,
      method: options.method as string,
      recipe: options.recipe as RecipeName | undefined,
      scope: options.scope as Scope | undefined,
      leads: {
        halfExponent: switchOf(options["half-exponent"]),
        channelOffsets: switchOf(options.offsets),
        rowBounds: switchOf(options["row-bounds"]),
      },
      rank: options.rank,
      rectifiers: options.rectifiers,
      iterations: options.iterations,
      osrc: options.osrc,
      batch: options.batch,
      patch: options.patch,
      seed: options.seed,
      condition: options.condition,
      candidates: options.candidates,
      gate: options.gate as GateKind | undefined,
      tuning: options.tune as Tuning | undefined,
      resume: options.resume,
      device: options.device as DeviceChoice,
      signal: ctx.signal,
      version: packageVersion(),
    });
    let note = "";
    let step = await run.next();
    for (; !step.done; step = await run.next()) {
      const event = step.value;
      if (event.type === "eval") note = `, ${event.psnr.toFixed(2)} dB held out`;
      if (event.type === "step") {
        ctx.progress.update({
          label: event.stage,
          done: event.iteration,
          total: event.iterations,
          unit: "iterations",
          note: `loss ${event.loss.toFixed(5)}${note}`,
        });
      }
    }
    ctx.progress.finish();
    const result: QuantizeResult = step.value;
    const { out, seed, test } = options;
    const testLr = options["test-lr"];
    const command = commandOf(options);
    await writeQuantizeReport(
      { model, result, out, seed, command, test, testLr },
      ctx.signal,
      ctx.progress,
    );
    const { model: file, bytes, seconds, table, settings } = result;
    const { method, scope, recipe } = settings;
    ctx.out(
      `${file}: ${(bytes / 2 ** 20).toFixed(3)} MiB at ${options.bits} bit, method ${method}, scope ${scope}, recipe ${recipe} (${seconds.toFixed(0)} s)`,
    );
    const routing = table ? `table.json (gates ${table.kept}), ` : "";
    ctx.out(`${options.out}: ${routing}log.jsonl, report.html`);
    ctx.result({
      model: file,
      bytes,
      bits: options.bits,
      method,
      scope,
      recipe,
      seed: options.seed,
      seconds,
      table,
    });
  },
});
