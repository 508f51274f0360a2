/**
 * Finds and loads the native addon. This is the only file that knows where it lies: SPR2Q_NATIVE
 * (a path), else build/Release or prebuilds through node-gyp-build.
 */
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CudaStatus, NativeBinding } from "../binding.d.ts";
import { ERROR_CODES, type ErrorCode, expected, Spr2qError } from "./errors.ts";

export type {
  CudaStatus,
  DevicePlanHandle,
  F32,
  I32,
  NativeBinding,
  PlanHandle,
  U8,
} from "../binding.d.ts";

const require = createRequire(import.meta.url);
let loaded: NativeBinding | undefined;
let cuda: CudaStatus | undefined;

/** The folder that holds package.json: one above lib/ in the sources, two above in dist/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json")) && folder !== dirname(folder)) {
    folder = dirname(folder);
  }
  return folder;
}

/** The version in package.json. */
export function packageVersion(): string {
  return JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8")).version as string;
}

/** What was tried, why it failed, and each way out with its command. */
function noBinary(path: string | undefined, cause: Error): Spr2qError {
  const tried = path ?? `${packageRoot()}: build/Release, prebuilds`;
  const reason = cause.message.split("\n")[0];
  const text = [
    `The native addon could not be loaded for ${process.platform}-${process.arch} (${tried}): ${reason}`,
    "Ways out:",
    "  - compile it here, with CMake 3.20 or newer and a C++17 compiler:  npx spr2q build",
    "  - in a clone of the project:  npm ci",
    "  - use one that lies elsewhere:  SPR2Q_NATIVE=/path/to/spr2q.node",
    ...(path ? ["  - or leave SPR2Q_NATIVE unset, which names the file above"] : []),
    "  - where a newer glibc is asked for, or node_modules came from another machine, install it again there",
    "See what this machine has:  npx spr2q doctor",
  ];
  return new Spr2qError("ERR_NO_BINARY", text.join("\n"), { cause });
}

/** The loaded addon. Throws ERR_NO_BINARY with what was tried and what to do. */
export function native(): NativeBinding {
  if (loaded) return loaded;
  const path = process.env.SPR2Q_NATIVE;
  try {
    const addon = path ? require(path) : require("node-gyp-build")(packageRoot());
    loaded = withCodedErrors(addon as NativeBinding);
  } catch (cause) {
    throw noBinary(path, cause as Error);
  }
  if (process.env.SPR2Q_CUDA_LIBRARY) openCuda(loaded);
  return loaded;
}

/** An error of the addon as a Spr2qError: its own code where that is one, else ERR_NATIVE. */
function coded(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof Spr2qError) return error;
  const code = (error as { code?: unknown }).code;
  const known = typeof code === "string" && Object.hasOwn(ERROR_CODES, code);
  return new Spr2qError(known ? (code as ErrorCode) : "ERR_NATIVE", error.message, {
    cause: error,
  });
}

/** The addon's functions; what they throw, or reject with, is a {@link Spr2qError}. */
function withCodedErrors(addon: NativeBinding): NativeBinding {
  const wrap =
    (call: (...values: unknown[]) => unknown) =>
    (...values: unknown[]): unknown => {
      let result: unknown;
      try {
        result = call(...values);
      } catch (error) {
        throw coded(error);
      }
      if (!(result instanceof Promise)) return result;
      return result.catch((error: unknown) => {
        throw coded(error);
      });
    };
  const entries = Object.entries(addon).map(([name, call]) => [name, wrap(call)]);
  return Object.fromEntries(entries) as NativeBinding;
}

/**
 * Sets how many threads the kernels use, for all models and threads of this process; returns the
 * number in use. Without an argument, only tells it; the default is one for each core that this process
 * may use. ERR_ARGUMENT unless
 * `count` is a whole number from 1 to 1024. Waits for the kernel at work, some milliseconds.
 */
export function setThreads(count?: number): number {
  if (count === undefined) return native().threads();
  if (!Number.isInteger(count) || count < 1 || count > 1024) {
    throw expected("ERR_ARGUMENT", "threads", "a whole number from 1 to 1024", `${count}`);
  }
  return native().threads(count);
}

/** Where the CUDA library is looked for: SPR2Q_CUDA_LIBRARY, else beside the addon. */
function cudaLibraryPath(): string | undefined {
  const name = "libspr2q_cuda.so";
  const places = [
    join(packageRoot(), "build", "Release", name),
    join(packageRoot(), "prebuilds", `${process.platform}-${process.arch}`, name),
  ];
  return process.env.SPR2Q_CUDA_LIBRARY || places.find((path) => existsSync(path));
}

function openCuda(binding: NativeBinding): CudaStatus {
  const path = cudaLibraryPath();
  cuda ??= path
    ? binding.openCuda(path)
    : {
        code: "ERR_CUDA_NO_LIBRARY",
        text: "libspr2q_cuda.so is not beside the addon",
        hostMemory: false,
        devices: [],
      };
  return cuda;
}

/** Whether this machine can use CUDA, and why not. Throws only where the addon cannot load. */
export function describeCuda(): CudaStatus {
  return openCuda(native());
}

/** What `doctor` prints about the native half; never throws. */
export function describeNative(): {
  loaded: boolean;
  isa?: string;
  isas?: string[];
  threads?: number;
  version?: string;
  reason?: string;
} {
  try {
    const binding = native();
    return {
      loaded: true,
      isa: binding.backendName(),
      isas: binding.backends(),
      threads: binding.threads(),
      version: packageVersion(),
    };
  } catch (error) {
    return { loaded: false, reason: (error as Error).message };
  }
}
