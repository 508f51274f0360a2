/** Orthonormal turns of a module's inputs: x T is quantised in place of x, and W T in place of W. */
import { Var } from "../autograd.ts";
import { halfToFloat32, toFloat16 } from "../io/host_tensor.ts";
import { expected } from "../errors.ts";
import { hadamard } from "../linalg/hadamard.ts";
import { type Matrix, matrix, transposed } from "../linalg/matrix.ts";
import type { Network } from "../models/network.ts";
import { floatsFrom } from "../tensor.ts";
import { turnInputs } from "./folding.ts";
import type { QuantisedSites } from "./sites.ts";

/** The operand of the online product: T^T (side, side), Hadamard's where `stored` is null. */
export function rotationVar(side: number, stored: ArrayLike<number> | null): Var {
  const data = stored ?? transposed(hadamardOf(side)).data;
  return new Var(floatsFrom(data), [side, side]);
}

/** The Hadamard matrix of an order; ERR_CONFIG where none is known. */
export function hadamardOf(side: number): Matrix {
  const found = hadamard(side);
  if (found) return found;
  const wanted = "channels of which a Hadamard matrix exists (8, 12, 16, 24, 48, 60, ...)";
  throw expected("ERR_CONFIG", "rotation", wanted, `${side}`);
}

/** T as a file stores it: half precision. */
export function halfRounded(turn: Matrix): Matrix {
  const rounded = halfToFloat32(toFloat16(Float32Array.from(turn.data)));
  return matrix(turn.rows, turn.cols, rounded);
}

/** Turns the inputs of `key` by `turn` from now on: online at its site, folded in its weight. */
export function rotate(net: Network, sites: QuantisedSites, key: string, turn: Matrix): void {
  turnInputs(net, key, turn);
  sites.rotations.set(key, rotationVar(turn.rows, transposed(turn).data));
}
