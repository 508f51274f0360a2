/** Training state on disk: one safetensors file, written to a temporary name and renamed. */
import { readFile } from "node:fs/promises";
import { Spr2qError } from "../errors.ts";
import { writeFileAtomic } from "../io/files.ts";
import { type HostTensor, toFloat32 } from "../io/host_tensor.ts";
import { readSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { Stage } from "./events.ts";

export interface TrainingState {
  readonly stage: Stage;
  /** Iterations of `stage` that are done. */
  readonly iteration: number;
  /** What identifies the run; a resumed command must give the same. */
  readonly identity: string;
  readonly tensors: ReadonlyMap<string, Float32Array>;
}

export async function writeCheckpoint(path: string, state: TrainingState): Promise<void> {
  const tensors = new Map<string, HostTensor>();
  for (const [name, data] of state.tensors) {
    tensors.set(name, { shape: [data.length], dtype: "f32", data: Float32Array.from(data) });
  }
  const { stage, iteration, identity } = state;
  await writeFileAtomic(
    path,
    writeSafetensors(tensors, { stage, iteration: `${iteration}`, identity }),
  );
}

/** The state in `path`; null where there is none. ERR_RESUME where it belongs to another run. */
export async function readCheckpoint(
  path: string,
  identity: string,
): Promise<TrainingState | null> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch {
    return null;
  }
  const { tensors, metadata } = readSafetensors(bytes, path);
  if (metadata.identity !== identity) {
    throw new Spr2qError(
      "ERR_RESUME",
      `${path} belongs to another run: expected ${identity}, got ` +
        `${metadata.identity}. Use the same options, another --out, or no --resume.`,
    );
  }
  return {
    stage: metadata.stage as Stage,
    iteration: Number(metadata.iteration),
    identity,
    tensors: new Map([...tensors].map(([name, tensor]) => [name, toFloat32(tensor)])),
  };
}
