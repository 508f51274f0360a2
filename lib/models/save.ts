/** Full-precision networks as safetensors. */
import { readable } from "../device.ts";
import type { HostTensor } from "../io/host_tensor.ts";
import { writeSafetensors } from "../io/safetensors.ts";
import type { Network } from "./network.ts";

/** Bytes of a full-precision weight file under the official tensor names. */
export function saveFloat(net: Network, metadata: Readonly<Record<string, string>>): Uint8Array {
  const tensors = new Map<string, HostTensor>();
  for (const [name, { data, shape }] of net.weights) {
    tensors.set(name, { shape, dtype: "f32", data: Float32Array.from(readable(data)) });
  }
  return writeSafetensors(tensors, { architecture: net.architecture.name, ...metadata });
}
