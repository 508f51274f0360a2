/** `spr2q doctor`: what this machine offers, and what to do where something is missing. */
import { type CudaStatus, describeCuda, describeNative, packageRoot } from "../../binding.ts";
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from "node:os";
import { PUBLISHED_FILES, type PublishedFile } from "../../models/published.ts";
import { defineCommand } from "../args.ts";

/** What the native half says about itself; the shape that lib/binding.ts reports. */
export interface NativeFacts {
  readonly loaded: boolean;
  /** Instruction set in use, and all that this processor could run. */
  readonly isa?: string;
  readonly isas?: readonly string[];
  readonly threads?: number;
  readonly version?: string;
  /** Why it is not loaded. */
  readonly reason?: string;
}

/** What Node and the operating system say. */
export interface MachineFacts {
  readonly node: string;
  readonly platform: string;
  readonly arch: string;
  readonly release: string;
  readonly cpu: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  readonly freeMemory: number;
}

/** One line of the report: good, to know, or wrong (with the way to mend it). */
export interface DoctorRow {
  readonly name: string;
  readonly status: "ok" | "info" | "bad";
  readonly text: string;
  readonly fix?: string;
}

/** Oldest Node that spr2q supports (`engines` of package.json). */
const OLDEST_NODE: readonly [number, number] = [20, 19];
/** Memory below which training the bundled networks is likely to fail, in bytes. */
const LITTLE_MEMORY = 2 * 2 ** 30;

/** The facts of the machine that this runs on. */
export function machineFacts(): MachineFacts {
  return {
    node: process.versions.node,
    platform: platform(),
    arch: arch(),
    release: release(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memory: totalmem(),
    freeMemory: freemem(),
  };
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function nativeRows(native: NativeFacts): DoctorRow[] {
  if (!native.loaded) {
    const text = (native.reason ?? "could not be loaded").split(/\s*\n\s*/).join(" ");
    const fix = "To build it: npx spr2q build (with CMake and a C++17 compiler installed).";
    return [{ name: "Native addon", status: "bad", text, fix }];
  }
  const version = native.version === undefined ? "loaded" : `version ${native.version}`;
  const others = native.isas === undefined ? "" : ` (this machine runs ${native.isas.join(", ")})`;
  const rows: DoctorRow[] = [{ name: "Native addon", status: "ok", text: version }];
  if (native.isa !== undefined) {
    rows.push({ name: "Instructions", status: "ok", text: `${native.isa}${others}` });
  }
  if (native.threads !== undefined) {
    rows.push({ name: "Threads", status: "ok", text: String(native.threads) });
  }
  return rows;
}

/** Builds the CUDA library in the package's own folder, wherever it is asked for. */
const BUILD_CUDA = `npm run --prefix "${packageRoot()}" build:cuda`;

/** What to do where CUDA is off, by code. */
const CUDA_FIX: Readonly<Record<string, string>> = {
  ERR_CUDA_NO_LIBRARY: `To build it, with the CUDA toolkit (nvcc): ${BUILD_CUDA}`,
  ERR_CUDA_BAD_LIBRARY: `Build the addon and the library from one source: ${BUILD_CUDA}`,
  ERR_CUDA_NO_DRIVER: "Install NVIDIA's driver (570 or newer), or run on a machine with a GPU.",
  ERR_CUDA_DRIVER_TOO_OLD: "Update NVIDIA's driver.",
  ERR_CUDA_NO_DEVICE: "Check nvidia-smi and CUDA_VISIBLE_DEVICES.",
  ERR_CUDA_UNSUPPORTED_DEVICE: "A GPU of compute capability 8.0 or newer is needed.",
  ERR_CUDA_BUSY: "Another process holds the GPU: check nvidia-smi.",
};

/** Whether the kernels of native/cuda can run here, and why not. The CPU works either way. */
export function cudaRow(cuda: CudaStatus): DoctorRow {
  if (cuda.code !== "OK") {
    const fix = CUDA_FIX[cuda.code];
    const row = { name: "CUDA", status: "info", text: `off: ${cuda.text} (${cuda.code})` } as const;
    return fix === undefined ? row : { ...row, fix };
  }
  const devices = cuda.devices.map(({ name, architecture, memoryBytes }) => {
    return `${name}, sm_${architecture}, ${gib(memoryBytes)}`;
  });
  if (cuda.hostMemory) return { name: "CUDA", status: "info", text: "the test shim, no GPU" };
  return { name: "CUDA", status: "ok", text: devices.join("; ") };
}

/** The report, line by line. */
export function doctorRows(
  machine: MachineFacts,
  native: NativeFacts,
  cuda: CudaStatus,
): DoctorRow[] {
  const [major, minor] = machine.node.split(".").map(Number);
  const isOld = major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1]);
  const isSmall = machine.memory < LITTLE_MEMORY;
  return [
    {
      name: "Node",
      status: isOld ? "bad" : "ok",
      text: machine.node,
      ...(isOld ? { fix: `Install Node ${OLDEST_NODE.join(".")} or newer.` } : {}),
    },
    {
      name: "System",
      status: "ok",
      text: `${machine.platform} ${machine.release}, ${machine.arch}`,
    },
    { name: "Processor", status: "ok", text: `${machine.cpu}, ${machine.cores} cores` },
    {
      name: "Memory",
      status: isSmall ? "info" : "ok",
      text: `${gib(machine.memory)}, ${gib(machine.freeMemory)} free`,
      ...(isSmall ? { fix: "Enough to upscale in tiles; train with --batch 1." } : {}),
    },
    ...nativeRows(native),
    cudaRow(cuda),
    ...PUBLISHED_FILES.map(weightsRow),
  ];
}

/** Where a network's official weights are to be had, and the command that quantises them. */
function weightsRow({ network, file, place, sha256 }: PublishedFile): DoctorRow {
  return {
    name: network,
    status: "info",
    text: `${file}, ${place}, SHA-256 ${sha256}`,
    fix: `To quantise it: spr2q quantize --model ${file} --bits 4 --train PHOTOS --out RUN`,
  };
}

/** CUDA is asked through the addon: without it nobody knows. */
const NOT_ASKED: CudaStatus = {
  code: "ERR_NO_BINARY",
  text: "the native addon is not loaded",
  hostMemory: false,
  devices: [],
};

export const command = defineCommand({
  name: "doctor",
  summary: "show what this machine offers and how to mend what is missing",
  usage: "[--json]",
  options: [],
  async run(ctx) {
    const machine = machineFacts();
    const native = describeNative();
    const cuda = native.loaded ? describeCuda() : NOT_ASKED;
    const rows = doctorRows(machine, native, cuda);
    const width = Math.max(...rows.map(({ name }) => name.length)) + 2;
    for (const { name, status, text, fix } of rows) {
      ctx.out(`${status.padEnd(6)}${name.padEnd(width)}${text}`);
      if (fix !== undefined) ctx.out(`${" ".repeat(6 + width)}${fix}`);
    }
    const healthy = rows.every(({ status }) => status !== "bad");
    ctx.result({ healthy, machine, native, cuda, rows });
  },
});
