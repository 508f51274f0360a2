/** The ONNX graph of SwinIR-light held to a golden forward, and calibrated for INT8. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Spr2qError } from "../errors.ts";
import { type TensorMap, toFloat32 } from "../io/host_tensor.ts";
import { readWeights } from "../io/weights.ts";
import { testPicture } from "./models.ts";
import type { Ort, OrtTensor } from "./ort.ts";
import { type Ranges, swinirModel } from "./swinir_onnx.ts";

/** Largest difference from the golden output in 0..1 that another order of summation explains. */
const TOLERANCE = 1e-3;
/** Sides of the calibration picture, in LR pixels. */
const CALIBRATION_SIDE = 64;

/** An image (height, width, 3) as the tensor (1, 3, height, width). */
export function planar(ort: Ort, image: Float32Array, width: number, height: number): OrtTensor {
  const tensor = ort.tensor([1, 3, height, width]);
  const plane = width * height;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) tensor.data[c * plane + i] = image[3 * i + c];
  }
  return tensor;
}

/**
 * Largest difference between the graph's output and the golden forward below `golden`; null where
 * the golden is not there or not of this checkpoint's scale. Above 1e-3 the graph is wrong:
 * ERR_INTERNAL.
 */
export async function checkSwinir(
  ort: Ort,
  tensors: TensorMap,
  golden: string,
): Promise<number | null> {
  const path = join(golden, "swinir-light-x4", "forward.safetensors");
  if (!existsSync(path)) return null;
  const file = (await readWeights(path)).tensors;
  const input = file.get("input")!;
  const wanted = toFloat32(file.get("output")!);
  const [, , height, width] = input.shape;
  const { bytes } = swinirModel(tensors, { height, width });
  const session = await ort.session(bytes, 1);
  const { output } = await session.run({ input: ort.tensor(input.shape, toFloat32(input)) });
  await session.release();
  if (output.data.length !== wanted.length) return null;
  let difference = 0;
  for (let i = 0; i < wanted.length; i++) {
    difference = Math.max(difference, Math.abs(output.data[i] - wanted[i]));
  }
  if (!(difference <= TOLERANCE)) {
    throw new Spr2qError(
      "ERR_INTERNAL",
      `The ONNX graph of SwinIR-light differs from the golden forward by ${difference}; ` +
        `expected at most ${TOLERANCE}. Was another checkpoint given with --swinir?`,
    );
  }
  return difference;
}

/** Ranges of the inputs of all products on one picture. */
export async function swinirRanges(ort: Ort, tensors: TensorMap): Promise<Ranges> {
  const side = CALIBRATION_SIDE;
  const { bytes, products } = swinirModel(tensors, { height: side, width: side, observe: true });
  const session = await ort.session(bytes, 1);
  const results = await session.run({ input: planar(ort, testPicture(side, side), side, side) });
  await session.release();
  return new Map(
    products.map((key) => [
      key,
      { min: results[`${key}.min`].data[0], max: results[`${key}.max`].data[0] },
    ]),
  );
}
