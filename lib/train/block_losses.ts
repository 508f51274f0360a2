/** Losses between a block's outputs and its teacher's, with their gradients. */
import type { F32 } from "../binding.ts";

/** Mean over tokens of 1 - cos between the channels of z and of y (rows, channels). */
export function cosineLoss(z: F32, y: F32, channels: number, gradient: F32): number {
  const rows = z.length / channels;
  let total = 0;
  for (let r = 0; r < rows; r++) {
    const at = r * channels;
    let [zz, yy, zy] = [1e-12, 1e-12, 0];
    for (let c = at; c < at + channels; c++) {
      zz += z[c] * z[c];
      yy += y[c] * y[c];
      zy += z[c] * y[c];
    }
    const lengths = Math.sqrt(zz * yy);
    const cosine = zy / lengths;
    total += (1 - cosine) / rows;
    for (let c = at; c < at + channels; c++)
      gradient[c] = ((cosine * z[c]) / zz - y[c] / lengths) / rows;
  }
  return total;
}
