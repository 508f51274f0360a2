/**
 * Suite `peers`: whole networks of 180x320 pixels at x4 against the best full-precision and INT8
 * engines that a Node user could pick: SwinIR-light in ONNX Runtime, MambaIRv2-light (whose scan
 * no ONNX operator computes) in PyTorch with a compiled scan.
 */
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { native } from "../binding.ts";
import { Spr2qError } from "../errors.ts";
import { openModel } from "../infer/model.ts";
import type { TensorMap } from "../io/host_tensor.ts";
import { readWeights } from "../io/weights.ts";
import { MAMBAIRV2 } from "../models/mambairv2.ts";
import { aboveWeights, peakMemory } from "./memory.ts";
import { calibratedBytes, familyOf, officialWeights, planOf, testPicture } from "./models.ts";
import { NET_HEIGHT, NET_WIDTH } from "./net.ts";
import type { Ort } from "./ort.ts";
import { type Goal, NO_GOAL, type RowText, skippedRow, timeRow, valueRow } from "./rows.ts";
import { onBackend, type Suite, timing } from "./suite.ts";
import { checkSwinir, planar, swinirRanges } from "./swinir_check.ts";
import { isSwinirLight, swinirModel } from "./swinir_onnx.ts";
import { interleave, type Side, type Timing } from "./timing.ts";
import { type TorchPeer, torchPeers } from "./torch.ts";

const SWINIR_GOAL: Goal = { floor: 3, stretch: 5 };
const MEMORY_GOAL: Goal = { floor: 10, stretch: 20 };
/** Of the FP32 plan and of W4A4. */
const TORCH_GOALS: readonly Goal[] = [
  { floor: 10, stretch: 20 },
  { floor: 20, stretch: 40 },
];

/** Runs the suite. */
export async function benchPeers(suite: Suite): Promise<void> {
  await swinir(suite);
  await mamba(suite);
}

const sizeText = `${NET_HEIGHT}x${NET_WIDTH}`;

function threadsText({ threads }: Suite): string {
  return `${threads} thread${threads > 1 ? "s" : ""}`;
}

function swinirPath(suite: Suite): string | null {
  if (suite.swinir) return suite.swinir;
  const path = suite.data && join(suite.data, "golden", "swinir-light-x4", "checkpoint.pth");
  return path && existsSync(path) ? path : null;
}

async function swinir(suite: Suite): Promise<void> {
  const name = `SwinIR-light x4 ${sizeText}`;
  const rows = ["FP32", "INT8 QDQ"].map(
    (kind): RowText => ({
      name: `${name} W4A4, ${threadsText(suite)}`,
      against: `onnxruntime ${kind}`,
    }),
  );
  const memory: RowText = {
    name: `${name} peak memory above weights`,
    against: "onnxruntime FP32",
  };
  const skip = (reason: string, ours?: Timing): void => {
    for (const text of rows) suite.row(skippedRow(text, reason, SWINIR_GOAL, ours));
    suite.row(skippedRow(memory, reason, MEMORY_GOAL));
  };
  const path = swinirPath(suite);
  if (!path) return skip("no SwinIR-light checkpoint: --swinir FILE or SPR2Q_TEST_DATA");
  const { tensors } = await readWeights(path);
  if (!isSwinirLight(tensors)) {
    throw new Spr2qError(
      "ERR_ARCHITECTURE",
      `${path}: --swinir expects a SwinIR-light checkpoint.`,
    );
  }
  const folder = await mkdtemp(join(tmpdir(), "spr2q-bench-"));
  try {
    const packed = join(folder, "packed.safetensors");
    suite.say("calibrating SwinIR-light x4 at 4 bit");
    await writeFile(packed, await calibratedBytes(await openModel(path), 4));
    const prepare = onBackend(suite.threads, native().backends()[0]);
    const image = testPicture(NET_WIDTH, NET_HEIGHT);
    const plan = planOf(await openModel(packed), NET_WIDTH, NET_HEIGHT);
    const sides: Side[] = [{ prepare, run: () => plan.run(image, suite.signal) }];
    const { ort } = suite;
    if (typeof ort === "string") {
      return skip(ort, (await interleave(sides, timing(suite)))[0]);
    }
    sides.push(...(await swinirSessions(suite, ort, tensors)));
    const [ours, ...peers] = await interleave(sides, timing(suite));
    rows.forEach((text, i) => {
      suite.row(timeRow(text, ours, peers[i], SWINIR_GOAL));
    });
    await swinirMemory(suite, tensors, packed, folder, memory);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The two sessions, once the float one has reproduced the golden forward. */
async function swinirSessions(suite: Suite, ort: Ort, tensors: TensorMap): Promise<Side[]> {
  if (suite.data) {
    const difference = await checkSwinir(ort, tensors, join(suite.data, "golden"));
    if (difference !== null)
      suite.say(`onnx graph against the golden: ${difference.toExponential(1)}`);
  }
  const ranges = await swinirRanges(ort, tensors);
  const input = planar(ort, testPicture(NET_WIDTH, NET_HEIGHT), NET_WIDTH, NET_HEIGHT);
  const sides: Side[] = [];
  for (const options of [{}, { ranges }]) {
    const size = { height: NET_HEIGHT, width: NET_WIDTH };
    const { bytes, scale } = swinirModel(tensors, { ...size, ...options });
    const session = await ort.session(bytes, suite.threads);
    const output = ort.tensor([1, 3, NET_HEIGHT * scale, NET_WIDTH * scale]);
    sides.push({ run: () => session.run({ input }, { output }) });
  }
  return sides;
}

async function swinirMemory(
  suite: Suite,
  tensors: TensorMap,
  packed: string,
  folder: string,
  text: RowText,
): Promise<void> {
  const onnx = join(folder, "swinir.onnx");
  await writeFile(onnx, swinirModel(tensors, { height: NET_HEIGHT, width: NET_WIDTH }).bytes);
  const ours = await peakMemory("plan", packed, NET_WIDTH, NET_HEIGHT, suite.threads);
  const peer = await peakMemory("ort", onnx, NET_WIDTH, NET_HEIGHT, suite.threads);
  for (const side of [ours, peer]) {
    if (typeof side === "string") return suite.row(skippedRow(text, side, MEMORY_GOAL));
  }
  const [a, b] = [ours, peer].map((side) => aboveWeights(side as Exclude<typeof side, string>));
  suite.row(valueRow(text, "MiB", a / 2 ** 20, b / 2 ** 20, MEMORY_GOAL));
}

async function mamba(suite: Suite): Promise<void> {
  const skip = (reason: string): void => {
    mambaRows(suite, "").forEach((text, i) => {
      suite.row(skippedRow(text, reason, TORCH_GOALS[i]));
    });
  };
  const path = suite.model ?? officialWeights(suite, 4);
  if (!path) return skip("no MambaIRv2-light x4 weights: --model FILE or SPR2Q_TEST_DATA");
  const { architecture, config } = (await openModel(path)).net;
  const light = JSON.stringify(config) === JSON.stringify(MAMBAIRV2.lightConfig(4));
  if (architecture !== MAMBAIRV2 || !light) return skip(`${path} is no MambaIRv2-light x4`);
  const { float, packed } = await familyOf(suite, path, [4], true);
  const image = testPicture(NET_WIDTH, NET_HEIGHT);
  const prepare = onBackend(suite.threads, native().backends()[0]);
  const sides = [float, packed.get(4)!].map((runnable): Side => {
    const plan = planOf(runnable, NET_WIDTH, NET_HEIGHT);
    return { prepare, run: () => plan.run(image, suite.signal) };
  });
  const sizes = ["--threads", suite.threads, "--height", NET_HEIGHT, "--width", NET_WIDTH];
  const peers = torchPeers("mambairv2_torch.py", sizes.map(String), suite.data, suite.python);
  // The goals are against PyTorch as Debian installs it, the first of the peers.
  let goals = TORCH_GOALS;
  for await (const torch of peers) {
    await mambaAgainst(suite, sides, torch, goals);
    goals = [NO_GOAL, NO_GOAL];
  }
}

function mambaRows(suite: Suite, blas: string): RowText[] {
  return ["FP32 plan", "W4A4"].map((kind) => ({
    name: `MambaIRv2-light x4 ${sizeText} ${kind}, ${threadsText(suite)}`,
    against: `PyTorch FP32 with a compiled scan${blas && `, ${blas}`}`,
  }));
}

async function mambaAgainst(
  suite: Suite,
  ours: readonly Side[],
  torch: TorchPeer | string,
  goals: readonly Goal[],
): Promise<void> {
  const rows = mambaRows(suite, typeof torch === "string" ? "" : torch.blas);
  if (typeof torch === "string") {
    const timings = await interleave(ours, timing(suite));
    rows.forEach((text, i) => {
      suite.row(skippedRow(text, torch, goals[i], timings[i]));
    });
    return;
  }
  try {
    suite.version("torch", torch.version);
    const sides: Side[] = [...ours, { reports: true, run: torch.forward }];
    const timings = await interleave(sides, timing(suite));
    rows.forEach((text, i) => {
      suite.row(timeRow(text, timings[i], timings[2], goals[i]));
    });
  } finally {
    await torch.stop();
  }
}
