/**
 * Parameters as names, shapes and initial draws, and the checks that a weight file's tensors pass
 * before they become a network. What a given network consists of is in its own files.
 */
import { Spr2qError, expected } from "../errors.ts";
import type { TensorMap } from "../io/host_tensor.ts";

/** How a fresh parameter is drawn (only for training from scratch). */
export type Initial =
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "normal"; readonly deviation: number }
  | { readonly kind: "uniform"; readonly bound: number }
  | { readonly kind: "state-logs"; readonly states: number }
  | { readonly kind: "delta-bias" };

/** One tensor of a network. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly initial: Initial;
}

export const constant = (value: number): Initial => ({ kind: "constant", value });
export const uniform = (bound: number): Initial => ({ kind: "uniform", bound });
export const normal: Initial = { kind: "normal", deviation: 0.02 };

function pair(
  name: string,
  shape: readonly number[],
  initial: Initial,
  bias: Initial,
): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape, initial },
    { name: `${name}.bias`, shape: [shape[0]], initial: bias },
  ];
}

/** Weight (out, cols) and bias of a linear layer. */
export const linearSpecs = (name: string, out: number, cols: number): ParameterSpec[] =>
  pair(name, [out, cols], normal, constant(0));

/** Weight and bias of a LayerNorm. */
export const normSpecs = (name: string, channels: number): ParameterSpec[] =>
  pair(name, [channels], constant(1), constant(0));

/** Weight (out, in, kernel, kernel) and bias of a convolution. */
export function convSpecs(name: string, shape: readonly number[]): ParameterSpec[] {
  const bound = uniform(1 / Math.sqrt(shape[1] * shape[2] * shape[3]));
  return pair(name, shape, bound, bound);
}

/** Shape of a tensor that must be there with `rank` axes; ERR_CHECKPOINT names it otherwise. */
export function shapeOf(tensors: TensorMap, name: string, rank: number): readonly number[] {
  const found = tensors.get(name)?.shape;
  if (!found) throw new Spr2qError("ERR_CHECKPOINT", `"${name}" is missing from the weight file.`);
  if (found.length !== rank) {
    throw expected("ERR_CHECKPOINT", `"${name}"`, `${rank} axes`, `shape (${found.join(", ")})`);
  }
  return found;
}

/** Upscaling factor from the last convolution's 3 scale^2 output channels; ERR_CHECKPOINT. */
export function inferScale(tensors: TensorMap): number {
  const [outputs] = shapeOf(tensors, "upsample.0.weight", 4);
  const scale = Math.sqrt(outputs / 3);
  if (!Number.isInteger(scale) || scale < 1 || scale > 8) {
    const what = '"upsample.0.weight"';
    throw expected("ERR_CHECKPOINT", what, "3*scale^2 output channels", `${outputs}`);
  }
  return scale;
}

/** Layers of each group; `probe` names a tensor that every layer has. */
export function inferDepths(
  tensors: ReadonlyMap<string, unknown>,
  probe: (group: number, layer: number) => string,
): number[] {
  const depths: number[] = [];
  for (let group = 0; tensors.has(`layers.${group}.conv.weight`); group++) {
    let layer = 0;
    while (tensors.has(probe(group, layer))) layer++;
    depths.push(layer);
  }
  return depths;
}

/**
 * Refuses missing, extra and misshapen tensors with ERR_CHECKPOINT; keys for which `isBuffer` is
 * true may be present and are not looked at. `name` is the file's.
 */
export function checkTensors(
  tensors: TensorMap,
  specs: readonly ParameterSpec[],
  isBuffer: (key: string) => boolean,
  depths: readonly number[],
  name: string,
): void {
  const known = new Map(specs.map((spec) => [spec.name, spec.shape]));
  for (const [key, shape] of known) {
    const found = tensors.get(key);
    if (!found) {
      throw new Spr2qError(
        "ERR_CHECKPOINT",
        `${name}: "${key}" is missing; expected shape (${shape.join(", ")}).`,
      );
    }
    if (found.shape.join() !== shape.join()) {
      const turned = [...found.shape].reverse().join() === shape.join();
      throw expected(
        "ERR_CHECKPOINT",
        `${name}: "${key}"`,
        `shape (${shape.join(", ")})`,
        `(${found.shape.join(", ")})`,
        turned ? "Was the checkpoint saved transposed?" : "",
      );
    }
  }
  for (const key of tensors.keys()) {
    if (!known.has(key) && !isBuffer(key)) {
      throw new Spr2qError(
        "ERR_CHECKPOINT",
        `${name}: unexpected tensor "${key}"; a network with depths ${depths.join(",")} has ` +
          `${known.size} tensors and none of that name.`,
      );
    }
  }
}
