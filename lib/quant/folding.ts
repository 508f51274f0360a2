/**
 * Changes of a network's weights that leave its function alone: what moves scales, offsets and
 * rotations of channels across a linear map. All are done in double on full-precision weights.
 */
import type { Var } from "../autograd.ts";
import { type Matrix, matrix, product } from "../linalg/matrix.ts";
import type { Network } from "../models/network.ts";

/** A linear module's weight as (out, in). */
export function weightOf(net: Network, key: string): Matrix {
  return matrix(tensorRows(tensorOf(net, key)), inputsOf(net, key), tensorOf(net, key).data);
}

/** Channels of a linear module's input, without reading its weight. */
export function inputsOf(net: Network, key: string): number {
  const weight = tensorOf(net, key);
  return weight.size / tensorRows(weight);
}

/** A leading axis of one (the scan's projections) is no row; 1x1 kernels have trailing ones. */
function tensorRows({ shape }: Var): number {
  return shape[0] === 1 && shape.length === 3 ? shape[1] : shape[0];
}

/** The scan's projections have no ".weight" of their own. */
function tensorOf(net: Network, key: string): Var {
  return net.get(key.endsWith("_weight") ? key : `${key}.weight`);
}

/** Replaces a linear module's weight. */
export function setWeight(net: Network, key: string, weight: Matrix): void {
  tensorOf(net, key).data.set(weight.data);
}

/** Moves weight and bias of a LayerNorm into the linear modules `consumers` that read it. */
export function foldNorm(net: Network, norm: string, consumers: readonly string[]): void {
  const [gain, shift] = [net.get(`${norm}.weight`).data, net.get(`${norm}.bias`).data];
  for (const key of consumers) {
    const w = weightOf(net, key);
    const bias = net.get(`${key}.bias`).data;
    for (let o = 0; o < w.rows; o++) {
      let moved = 0;
      for (let c = 0; c < w.cols; c++) {
        moved += w.data[o * w.cols + c] * shift[c];
        w.data[o * w.cols + c] *= gain[c];
      }
      bias[o] += moved;
    }
    setWeight(net, key, w);
  }
  gain.fill(1);
  shift.fill(0);
}

/**
 * Channel c of a LayerNorm's output becomes (x_c + offset_c) / scale_c, made up for in the linear
 * modules that read it: columns times scale, bias minus W offset.
 */
export function rescaleNorm(
  net: Network,
  norm: string,
  consumers: readonly string[],
  scales: ArrayLike<number>,
  offsets?: ArrayLike<number>,
): void {
  const [gain, shift] = [net.get(`${norm}.weight`).data, net.get(`${norm}.bias`).data];
  for (const key of consumers) {
    const w = weightOf(net, key);
    const bias = offsets ? net.get(`${key}.bias`).data : null;
    for (let o = 0; o < w.rows; o++) {
      let moved = 0;
      for (let c = 0; c < w.cols; c++) {
        moved += offsets ? w.data[o * w.cols + c] * offsets[c] : 0;
        w.data[o * w.cols + c] *= scales[c];
      }
      if (bias) bias[o] -= moved;
    }
    setWeight(net, key, w);
  }
  for (let c = 0; c < gain.length; c++) {
    gain[c] /= scales[c];
    shift[c] = (shift[c] + (offsets?.[c] ?? 0)) / scales[c];
  }
}

/** W of an orthonormal turn T of the inputs, x W^T = (x T)(W T)^T. */
export function turnInputs(net: Network, key: string, turn: Matrix): void {
  setWeight(net, key, product(weightOf(net, key), turn));
}
