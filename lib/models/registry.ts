/** The networks that this project knows, and how a weight file is told to be one of them. */
import { Spr2qError } from "../errors.ts";
import type { TensorMap } from "../io/host_tensor.ts";
import { MAMBAIRV2 } from "./mambairv2.ts";
import type { Architecture, NetworkConfig } from "./architecture.ts";
import { Network } from "./network.ts";
import { SWINIR } from "./swinir.ts";

/** Every architecture; a new one is added here and nowhere else. */
export const ARCHITECTURES: readonly Architecture[] = [MAMBAIRV2, SWINIR];

/** The architecture called `name` in metadata or on the command line; undefined for another. */
export function architectureNamed(name: string): Architecture | undefined {
  return ARCHITECTURES.find((architecture) => architecture.name === name);
}

/** Largest size that a configuration may name: far above every published network's. */
const MAX_SIZE = 1024;

/** What is wrong with a configuration read from a file ("a whole number for ..."), or null. */
export function configProblem(architecture: Architecture, config: unknown): string | null {
  const given = (config ?? {}) as Readonly<Record<string, unknown>>;
  const isSize = (n: unknown): boolean => Number.isInteger(n) && Number(n) > 0 && +n! <= MAX_SIZE;
  for (const [key, light] of Object.entries(architecture.lightConfig(2))) {
    const value = given[key];
    const list = Array.isArray(light);
    const sizes: unknown[] = Array.isArray(value) ? value : [value];
    if (list !== Array.isArray(value) || sizes.length === 0 || !sizes.every(isSize)) {
      return `${list ? "a list of whole numbers" : "a whole number"} for "${key}"`;
    }
  }
  return architecture.configProblem(config as NetworkConfig);
}

/**
 * The network in a full-precision checkpoint, `file` for messages. ERR_ARCHITECTURE where its keys
 * belong to no known family, ERR_CHECKPOINT where a tensor of the family is missing or misshapen.
 */
export function networkFrom(tensors: TensorMap, file: string): Network {
  const architecture = ARCHITECTURES.find((known) => known.recognises(tensors));
  if (!architecture) {
    const keys = [...tensors.keys()].slice(0, 3).join(", ");
    const titles = ARCHITECTURES.map(({ title }) => title).join(" or ");
    throw new Spr2qError(
      "ERR_ARCHITECTURE",
      `${file}: its tensors (${keys}, ...) belong to no network known here; expected a ` +
        `${titles} checkpoint or a model written by spr2q quantize.`,
    );
  }
  return Network.fromTensors(architecture, tensors, file);
}
