/** What a plan's list is made for: the processor in tiles of rows, or a GPU with a kernel a segment. */
import { native } from "../binding.ts";
import { callOnDevice, DeviceMemory } from "../device.ts";
import type { OpCall } from "../tensor.ts";
import { type Caller, hostCaller } from "./rewrite.ts";
import { type Joins, joinsOnDevice, rowWise } from "./segments.ts";

/** What runs a list. */
export interface Target {
  /** Makes the constants, so that they are those of the backend that runs the list. */
  readonly caller: Caller;
  /** What may be part of a segment. */
  readonly joins: Joins;
  /** True where a thread has memory of its own for a tile of a segment's rows; a GPU has none. */
  readonly tiled: boolean;
}

/** The CPU, in tiles. */
export const CPU: Target = { caller: hostCaller, joins: rowWise, tiled: true };

/** The GPU in use: it makes the list's constants, and a segment is one kernel. */
export function deviceTarget(): Target {
  const call = callOnDevice(new DeviceMemory());
  const caller: Caller = (op, ...operands) => call(native()[op] as OpCall, operands);
  return { caller, joins: joinsOnDevice, tiled: false };
}
