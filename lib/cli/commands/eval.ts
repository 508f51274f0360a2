/** `spr2q eval`: PSNR and SSIM of a model on a folder of HR images. */
import { chosenDevice, type DeviceChoice } from "../../device.ts";
import { Spr2qError } from "../../errors.ts";
import { evaluateFolder } from "../../infer/evaluate.ts";
import { openModel } from "../../infer/model.ts";
import { defineCommand } from "../args.ts";
import { deviceOption, parseTiling, routingOptions } from "../run_options.ts";

export const command = defineCommand({
  name: "eval",
  summary: "measure PSNR and SSIM on a folder of images",
  usage: "--model M|bicubic --hr DIR [--lr DIR] [--scale S]",
  options: [
    {
      name: "model",
      type: "string",
      required: true,
      value: "FILE",
      help: 'model file, or "bicubic"',
    },
    {
      name: "hr",
      type: "string",
      required: true,
      value: "DIR",
      help: "folder of high-resolution PNGs",
    },
    {
      name: "lr",
      type: "string",
      value: "DIR",
      help: "their low-resolution twins (default: made by MATLAB's bicubic)",
    },
    {
      name: "scale",
      type: "choice",
      choices: [2, 3, 4],
      help: "factor, for bicubic; models know theirs",
    },
    ...routingOptions,
    deviceOption,
    {
      name: "tile",
      type: "string",
      default: "none",
      value: "T",
      help: "none, official (MambaIRv2's rule) or a side",
    },
  ],
  async run(ctx) {
    const { options } = ctx;
    const bicubic = options.model === "bicubic";
    const model = bicubic ? null : await openModel(options.model);
    const scale = model?.net.config.scale ?? (options.scale as number | undefined);
    if (!scale) throw new Spr2qError("ERR_USAGE", "--model bicubic needs --scale 2, 3 or 4.");
    if (options.scale && options.scale !== scale) {
      throw new Spr2qError(
        "ERR_USAGE",
        `--scale ${options.scale}: ${options.model} is a x${scale} model.`,
      );
    }
    const device = chosenDevice(options.device as DeviceChoice);
    const result = await evaluateFolder(model, scale, options.hr, options.lr, {
      tiling: parseTiling(options.tile),
      routing: options.routing as "sampled" | "argmax",
      seed: options.seed,
      device,
      signal: ctx.signal,
      onProgress: (share) =>
        ctx.progress.update({ label: "evaluating", done: Math.round(share * 100), total: 100 }),
    });
    ctx.progress.finish();
    for (const { name, psnr, ssim } of result.images) {
      ctx.out(`${name.padEnd(16)} ${psnr.toFixed(3)} dB  SSIM ${ssim.toFixed(4)}`);
    }
    ctx.out(
      `${"mean".padEnd(16)} ${result.psnr.toFixed(3)} dB  SSIM ${result.ssim.toFixed(4)}  (${result.seconds.toFixed(1)} s)`,
    );
    if (result.psnrLuma !== undefined) {
      ctx.out(
        `${"luma alone".padEnd(16)} ${result.psnrLuma.toFixed(3)} dB  (HR shrunk and enlarged, as published bicubic rows)`,
      );
    }
    const { model: name, routing, seed, tile } = options;
    const routed = model?.net.architecture.routes
      ? { routing, seed }
      : { routing: null, seed: null };
    ctx.result({ ...result, model: name, scale, ...routed, tile, device });
  },
});
