/**
 * What a training run starts from: a network that already interpolates, or one trained before.
 * Fresh weights would spend their first hundreds of steps on learning to copy the image.
 */
import { expected } from "../errors.ts";
import { cubic } from "../metrics/resize.ts";
import type { Network } from "../models/network.ts";

/** Channels of an image; as many channels of the features carry it to the last convolution. */
const COLOURS = 3;
/** Share of the drawn weights that is left where they would cover the image with noise. */
const QUIET = 0.1;
const SIDE = 3;
const LAST = "upsample.0";

/**
 * Makes a freshly drawn network an interpolator: the first convolution copies the image into three
 * channels, the last one interpolates these by Keys' cubic kernel, cut to its three nearest taps,
 * and what the layers between add to them is small. The network then learns what interpolation
 * misses (residual learning: Kim et al., "Accurate Image Super-Resolution Using Very Deep
 * Convolutional Networks", CVPR 2016).
 */
export function interpolating(net: Network): void {
  const { scale } = net.config;
  const part = (name: string): Float32Array => net.weights.get(name)!.data;
  const first = part("conv_first.weight");
  const middle = (SIDE * SIDE) >> 1;
  first.fill(0, 0, COLOURS * COLOURS * SIDE * SIDE);
  for (let c = 0; c < COLOURS; c++) first[(c * COLOURS + c) * SIDE * SIDE + middle] = 1;
  part("conv_first.bias").fill(0, 0, COLOURS);

  const { data: last, shape } = net.weights.get(`${LAST}.weight`)!;
  const channels = shape[1];
  const body = part("conv_after_body.weight").subarray(0, COLOURS * channels * SIDE * SIDE);
  for (const drawn of [body, last]) for (let i = 0; i < drawn.length; i++) drawn[i] *= QUIET;
  part("conv_after_body.bias").fill(0, 0, COLOURS);
  part(`${LAST}.bias`).fill(0);
  const taps = Array.from({ length: scale }, (_, phase) => cubicTaps((phase + 0.5) / scale - 0.5));
  for (let output = 0; output < shape[0]; output++) {
    const colour = Math.floor(output / scale ** 2);
    const [down, right] = [Math.floor(output / scale) % scale, output % scale];
    for (let c = 0; c < COLOURS; c++) {
      for (let tap = 0; tap < SIDE * SIDE; tap++) {
        const weight = taps[down][Math.floor(tap / SIDE)] * taps[right][tap % SIDE];
        last[(output * channels + c) * SIDE * SIDE + tap] = c === colour ? weight : 0;
      }
    }
  }
}

/** Weights of the pixels at -1, 0 and 1 for a point at `u` in (-0.5, 0.5); their sum is 1. */
function cubicTaps(u: number): readonly number[] {
  const weights = [-1, 0, 1].map((at) => cubic(u - at));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/**
 * Gives `net` the weights of `trained`, whose scale may differ: the pixels that a smaller one has
 * in one place then all start as that one. ERR_CHECKPOINT, naming `file`, where another size
 * differs.
 */
export function continuing(net: Network, trained: Network, file: string): void {
  const [scale, before] = [net.config.scale, trained.config.scale];
  const sizes = ({ architecture, config }: Network): string =>
    JSON.stringify({ architecture: architecture.name, ...config, scale: "any" });
  if (sizes(net) !== sizes(trained)) {
    throw expected("ERR_CHECKPOINT", file, `a network of ${sizes(net)}`, sizes(trained));
  }
  for (const [name, { data }] of net.weights) {
    const from = trained.weights.get(name)!.data;
    if (!name.startsWith(LAST)) data.set(from);
    else {
      const row = data.length / (COLOURS * scale ** 2);
      for (let output = 0; output < COLOURS * scale ** 2; output++) {
        const colour = Math.floor(output / scale ** 2);
        const place = (at: number): number => Math.floor(((at % scale) * before) / scale);
        const [down, right] = [place(Math.floor(output / scale)), place(output)];
        const same = (colour * before + down) * before + right;
        data.set(from.subarray(same * row, (same + 1) * row), output * row);
      }
    }
  }
}
