/** The models that a server offers, by name, with bicubic interpolation for each of their scales. */
import { stat } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { packageRoot } from "../binding.ts";
import { expected } from "../errors.ts";
import type { UpscalerOptions } from "../infer/settings.ts";
import { Upscaler } from "../infer/upscaler.ts";
import { ioError } from "../io/files.ts";

/** What GET /models says of a model. */
export interface ModelFacts {
  /** What requests call it. */
  readonly name: string;
  readonly kind: "network" | "bicubic";
  readonly scale: number;
  /** Bits of weights and activations; 32 for full precision, null for bicubic. */
  readonly bits: number | null;
  /** Family of the network; null for bicubic. */
  readonly architecture: string | null;
  /** Size of the model's file. */
  readonly bytes: number | null;
  /** SHA-256 of the file's contents as the model was read. */
  readonly sha256: string | null;
}

/** A model, ready to run; no upscaler: bicubic. */
export interface Entry extends ModelFacts {
  readonly upscaler: Upscaler | null;
}

/** The networks of this package and their 4-bit versions, served where no model is named. */
export function bundledModels(): string[] {
  const files = ["x2", "x2-w4", "x4", "x4-w4"].map((name) => `mambairv2-light-${name}.safetensors`);
  return files.map((file) => join(packageRoot(), "assets", "model", file));
}

/**
 * Name and path of a model given as "NAME=FILE" or "FILE": a file called "model", as quantize writes
 * it, goes by its folder. ERR_ARGUMENT where that leaves no name of letters, digits, ".", "_", "-".
 */
export function nameModel(text: string): { name: string; path: string } {
  const given = /^([\w.-]+)=(.+)$/.exec(text);
  const path = given ? given[2] : text;
  const stem = basename(path, extname(path));
  const name = given?.[1] ?? (stem === "model" ? basename(dirname(resolve(path))) : stem);
  if (/^[\w.-]+$/.test(name)) return { name, path };
  const fix = "Write NAME=FILE.";
  throw expected("ERR_ARGUMENT", `name of ${path}`, "letters, digits, . _ or -", name, fix);
}

export class Catalogue {
  readonly entries: readonly Entry[];

  private constructor(entries: readonly Entry[]) {
    this.entries = entries;
  }

  /**
   * Opens the models, each given as {@link nameModel} takes it; the first is the default. Throws
   * ERR_ARGUMENT where two share a name, and what Upscaler.load throws; nothing stays open then.
   */
  static async load(models: readonly string[], options: UpscalerOptions): Promise<Catalogue> {
    const entries: Entry[] = [];
    try {
      for (const { name, path } of models.map(nameModel)) {
        if (entries.some((entry) => entry.name === name)) {
          const fix = "Write NAME=FILE for one of them.";
          throw expected("ERR_ARGUMENT", "models", "names that differ", `${name} twice`, fix);
        }
        entries.push(await openEntry(name, path, options));
      }
    } catch (cause) {
      for (const { upscaler } of entries) upscaler?.dispose();
      throw cause;
    }
    for (const scale of new Set(entries.map((entry) => entry.scale))) {
      const none = { bits: null, architecture: null, bytes: null, sha256: null, upscaler: null };
      entries.push({ name: `bicubic-x${scale}`, kind: "bicubic", scale, ...none });
    }
    return new Catalogue(entries);
  }

  /** The model of this name, or without one the first. ERR_NOT_FOUND. */
  find(name: string | null): Entry {
    const found = name === null ? this.entries[0] : this.entries.find((e) => e.name === name);
    if (found) return found;
    const names = this.entries.map((entry) => entry.name).join(", ");
    throw expected("ERR_NOT_FOUND", "model", names, JSON.stringify(name), "See GET /models.");
  }

  /** What GET /models says. */
  facts(): ModelFacts[] {
    return this.entries.map(({ upscaler: _, ...facts }) => facts);
  }

  dispose(): void {
    for (const { upscaler } of this.entries) upscaler?.dispose();
  }
}

async function openEntry(name: string, path: string, options: UpscalerOptions): Promise<Entry> {
  const upscaler = await Upscaler.load(path, options);
  const { net, sha256 } = upscaler.model;
  const file = await stat(path).catch((cause) => {
    throw ioError("read the model", path, cause);
  });
  return {
    name,
    kind: "network",
    scale: upscaler.scale,
    bits: upscaler.bits,
    architecture: net.architecture.name,
    bytes: file.size,
    sha256,
    upscaler,
  };
}
