/**
 * What a GPU may do to a process, played by the host shim: every failure is a coded error, the
 * process lives, the CPU's results stay the same, and nothing moves there by itself.
 */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { describeCuda, packageRoot } from "../../lib/binding.ts";
import { encodePng } from "../../lib/io/png.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { picture, writePackedModel, writeTinyModel } from "../cli/tiny_model.ts";

const { code, hostMemory } = describeCuda();
const shim = hostMemory && code === "OK";
const survivor = join(packageRoot(), "test", "cuda", "survivor.mjs");
const cli = join(packageRoot(), "dist", "lib", "cli", "main.js");
let folder = "";
let model = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "spr2q-cuda-failures-"));
  model = await writePackedModel(folder, policyFor("best", 4));
});

/** Runs Node with the shim set to `faults`; exit code, stdout and stderr. */
function node(argv: readonly string[], faults: Record<string, string> = {}) {
  const child = spawn(process.execPath, argv, { env: { ...process.env, ...faults } });
  let [out, err] = ["", ""];
  child.stdout.on("data", (text) => {
    out += text;
  });
  child.stderr.on("data", (text) => {
    err += text;
  });
  return new Promise<{ status: number | null; out: string; err: string }>((resolve) => {
    child.on("close", (status) => resolve({ status, out, err }));
  });
}

async function survive(faults: Record<string, string>, more: string[] = []) {
  const { status, out, err } = await node([survivor, model, ...more], faults);
  expect(status, err).toBe(0);
  return JSON.parse(out);
}

describe.skipIf(!shim)("failures of a GPU, on the shim (npm run test:cuda)", () => {
  const unusable: readonly [string, Record<string, string>, string][] = [
    ["an unsupported architecture", { SPR2Q_SHIM_ARCH: "52" }, "ERR_CUDA_UNSUPPORTED_DEVICE"],
    ["a driver too old", { SPR2Q_SHIM_DRIVER: "11000" }, "ERR_CUDA_DRIVER_TOO_OLD"],
    ["no driver", { SPR2Q_SHIM_DRIVER: "0" }, "ERR_CUDA_NO_DRIVER"],
    [
      "a driver without a GPU",
      { SPR2Q_SHIM_FAULT: "cudaGetDeviceCount@1+=cudaErrorNoDevice" },
      "ERR_CUDA_NO_DEVICE",
    ],
    [
      "a GPU that another process holds",
      { SPR2Q_SHIM_FAULT: "cudaSetDevice@1+=cudaErrorDevicesUnavailable" },
      "ERR_CUDA_BUSY",
    ],
  ];

  test.each(unusable)("%s is ERR_GPU_UNAVAILABLE with the reason", async (_, faults, reason) => {
    const { first, second, same } = await survive(faults);
    for (const result of [first, second]) {
      expect(result.code).toBe("ERR_GPU_UNAVAILABLE");
      expect(result.message).toContain(reason);
      expect(result.message).toContain("--device cpu");
    }
    expect(same).toBe(true);
  });

  test("doctor names the reason and the way to mend it", async () => {
    const { out } = await node([cli, "doctor"], { SPR2Q_SHIM_ARCH: "52" });
    expect(out).toMatch(/CUDA +off: .*5\.2.*ERR_CUDA_UNSUPPORTED_DEVICE/);
    expect(out).toContain("compute capability 8.0 or newer");
  });

  test("out of memory on the device is ERR_OUT_OF_MEMORY", async () => {
    const { first, second, same } = await survive({ SPR2Q_SHIM_MEMORY: "100000" });
    expect([first.code, second.code]).toEqual(["ERR_OUT_OF_MEMORY", "ERR_OUT_OF_MEMORY"]);
    expect(same).toBe(true);
  });

  test("what the cache holds is given back before a lack of memory is an error", async () => {
    const some = await survive({ SPR2Q_SHIM_MEMORY: `${3.5 * 2 ** 20}` }, ["memory"]);
    expect(some.memory).toBe("taken");
    const little = await survive({ SPR2Q_SHIM_MEMORY: `${2.5 * 2 ** 20}` }, ["memory"]);
    expect(little.memory).toBe("ERR_OUT_OF_MEMORY");
  });

  const lost = ["launch@30", "cudaGraphLaunch@1", "cudaStreamSynchronize@2", "cudaMemcpyAsync@60"];
  test.each(lost)("a device lost at %s is ERR_GPU_LOST, and stays lost", async (call) => {
    const fault = `${call}=cudaErrorIllegalAddress`;
    const { first, second, same } = await survive({ SPR2Q_SHIM_FAULT: fault });
    expect(first.code, first.message).toBe("ERR_GPU_LOST");
    expect(first.message).toContain("cudaErrorIllegalAddress");
    // What a run meets is a job's failure, with a code of its own; the rest is thrown as text.
    expect(first.cause).toBe(call.startsWith("cudaGraphLaunch") ? "ERR_GPU_LOST" : "ERR_NATIVE");
    expect(second.code, second.message).toBe("ERR_GPU_LOST");
    expect(same).toBe(true);
  });

  test("a single refusal of memory, and a plan that could not be made, leave the next one whole", async () => {
    const fault = "cudaMalloc@4=cudaErrorMemoryAllocation";
    const { first, second, same } = await survive({ SPR2Q_SHIM_FAULT: fault });
    const undisturbed = await survive({});
    expect(first.code ?? first.pixels).toEqual("ERR_OUT_OF_MEMORY");
    expect(second.pixels).toEqual(undisturbed.second.pixels);
    expect(same).toBe(true);
  });

  test("work that the GPU does as late as it may gives the same pixels", async () => {
    const [late, early] = [await survive({ SPR2Q_SHIM_DEFER: "1" }), await survive({})];
    expect(early.first.pixels).toBeDefined();
    expect(late).toEqual(early);
  });

  test("two processes on one GPU, and a run that loses it goes on from its checkpoint", async () => {
    await mkdir(join(folder, "train"));
    for (const i of [0, 1]) {
      const image = encodePng(picture(32, 32, 3, 8, i));
      await writeFile(join(folder, "train", `${i}.png`), image);
    }
    const float = await writeTinyModel(folder);
    const argv = (out: string): string[] => [
      ...[cli, "quantize", "--model", float, "--bits", "4", "--train", join(folder, "train")],
      ...["--out", join(folder, out), "--recipe", "quick", "--rank", "2", "--rectifiers", "2"],
      ...["--iterations", "2", "--osrc", "2", "--batch", "1", "--patch", "16"],
      ...["--device", "cuda", "--json"],
    ];
    const [one, two] = await Promise.all([
      node(argv("one")),
      node(argv("two"), { SPR2Q_SHIM_FAULT: "cudaMemsetAsync@900=cudaErrorECCUncorrectable" }),
    ]);
    expect(one.status, one.err).toBe(0);
    expect(two.status).toBe(1);
    expect(two.err).toContain("ERR_GPU_LOST");
    expect(two.err).toContain("--resume");
    const again = await node([...argv("two"), "--resume"], { SPR2Q_SHIM_DEFER: "1" });
    expect(again.status, again.err).toBe(0);
    const file = (out: string) => readFile(join(folder, out, "model.safetensors"));
    expect(await file("two")).toEqual(await file("one"));
  });
});
