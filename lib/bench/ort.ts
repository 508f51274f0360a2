/**
 * onnxruntime-node as a peer: found where it is installed (beside spr2q or in the current folder),
 * never a dependency. Everything runs on its CPU provider with every graph optimisation.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { packageRoot } from "../binding.ts";

/** The part of the package's Tensor that the bench uses. */
export interface OrtTensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

type Feeds = Readonly<Record<string, OrtTensor>>;

/** A loaded model. */
export interface OrtSession {
  /** `fetches` may name output tensors made beforehand, which spares their allocation. */
  run(feeds: Feeds, fetches?: Feeds): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

interface OrtModule {
  readonly env: { readonly versions?: { readonly node?: string; readonly common?: string } };
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<OrtSession>;
  };
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => OrtTensor;
}

/** The package once found. */
export interface Ort {
  readonly version: string;
  /** Loads a model for `threads` threads. */
  session(model: Uint8Array, threads: number): Promise<OrtSession>;
  /** A tensor over `data`, or over fresh memory. */
  tensor(shape: readonly number[], data?: Float32Array): OrtTensor;
}

/** What to do where the package is missing. */
export const ORT_MISSING =
  "onnxruntime-node is not installed; npm install --no-save --ignore-scripts onnxruntime-node";

/** The package, or why it cannot be used. */
export function findOrt(folders: readonly string[] = [packageRoot(), process.cwd()]): Ort | string {
  for (const folder of folders) {
    const require = createRequire(join(folder, "package.json"));
    let path: string;
    try {
      path = require.resolve("onnxruntime-node");
    } catch {
      continue;
    }
    try {
      return wrap(require(path) as OrtModule);
    } catch (cause) {
      return `onnxruntime-node cannot be loaded: ${(cause as Error).message.split("\n")[0]}`;
    }
  }
  return ORT_MISSING;
}

function wrap(module: OrtModule): Ort {
  const versions = module.env.versions;
  return {
    version: versions?.node ?? versions?.common ?? "unknown",
    session: (model, threads) =>
      module.InferenceSession.create(model, {
        executionProviders: ["cpu"],
        graphOptimizationLevel: "all",
        executionMode: "sequential",
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
      }),
    tensor: (shape, data) => {
      const count = shape.reduce((product, side) => product * side, 1);
      return new module.Tensor("float32", data ?? new Float32Array(count), shape);
    },
  };
}
