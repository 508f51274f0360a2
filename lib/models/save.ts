/** Full-precision networks as safetensors. */
import { readable } from "../device.ts";
import { type HostTensor, toFloat16 } from "../io/host_tensor.ts";
import { writeSafetensors } from "../io/safetensors.ts";
import type { Network } from "./network.ts";

/** Bytes of a full-precision weight file under the official tensor names, of floats of 32 or 16 bits. */
export function saveFloat(
  net: Network,
  metadata: Readonly<Record<string, string>>,
  dtype: "f32" | "f16" = "f32",
): Uint8Array {
  const tensors = new Map<string, HostTensor>();
  for (const [name, { data, shape }] of net.weights) {
    const values = Float32Array.from(readable(data));
    const stored = dtype === "f16" ? toFloat16(values) : values;
    tensors.set(name, { shape, dtype, data: stored });
  }
  return writeSafetensors(tensors, { architecture: net.architecture.name, ...metadata });
}
