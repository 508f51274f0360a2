/** The full-precision weights that rows start from, found in a folder by what the files hold. */
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { ioError } from "../io/files.ts";
import { type Model, openModel } from "../infer/model.ts";
import { MAMBAIRV2 } from "../models/mambairv2.ts";
import type { Architecture, NetworkConfig } from "../models/architecture.ts";
import { SWINIR } from "../models/swinir.ts";
import type { NetworkName, Source } from "./cell.ts";

const FAMILIES: Readonly<Record<NetworkName, Architecture>> = {
  "MambaIRv2-light": MAMBAIRV2 as Architecture,
  "SwinIR-light": SWINIR as Architecture,
};

/** A full-precision model of one of the paper's networks. */
export interface FoundModel {
  readonly model: Model;
  readonly source: Source;
}

/** Where full-precision models come from. */
export interface WeightSource {
  /** The network's weights for a scale; null where there are none. */
  find(name: NetworkName, scale: number): Promise<FoundModel | null>;
}

/** True for the sizes that the papers call light; another size of the family is another network. */
function isLight(name: NetworkName, { architecture, config }: Model["net"]): boolean {
  const family = FAMILIES[name];
  if (architecture.name !== family.name) return false;
  const light = family.lightConfig(config.scale) as NetworkConfig;
  const keys = ["channels", "depths", "heads", "window", "hidden"] as const;
  return keys.every((key) => JSON.stringify(light[key]) === JSON.stringify(config[key]));
}

/** In words where a file's weights are from, as far as the file says. */
function provenance({ metadata }: Model): string {
  const { command, train, library, iterations } = metadata;
  if (iterations || command || train) {
    const steps = iterations ? ` in ${iterations} iterations` : "";
    return `trained by spr2q${library ? ` ${library}` : ""}${steps}`;
  }
  return "as given";
}

/** All the light networks in `dir`, .pth and .safetensors; other files are passed over. */
export class WeightFolder implements WeightSource {
  readonly #dir: string;
  readonly #note: string | undefined;
  #models: Promise<Model[]> | null = null;

  /** `note` says in words where the weights are from, for every row that uses them. */
  constructor(dir: string, note?: string) {
    this.#dir = dir;
    this.#note = note;
  }

  /** The network's weights for a scale; null where the folder has none. @throws ERR_IO */
  async find(name: NetworkName, scale: number): Promise<FoundModel | null> {
    this.#models ??= this.#open();
    const fits = ({ net }: Model): boolean => net.config.scale === scale && isLight(name, net);
    const model = (await this.#models).find(fits);
    if (!model) return null;
    const what = this.#note ?? provenance(model);
    return { model, source: { file: basename(model.path), sha256: model.sha256, what } };
  }

  async #open(): Promise<Model[]> {
    let names: string[];
    try {
      names = await readdir(this.#dir);
    } catch (cause) {
      throw ioError("read the folder", this.#dir, cause);
    }
    const files = names.filter((name) => /\.(pth|safetensors)$/.test(name)).sort();
    const models: Model[] = [];
    for (const file of files) {
      const model = await openModel(join(this.#dir, file));
      if (!model.quantised) models.push(model);
    }
    return models;
  }
}
