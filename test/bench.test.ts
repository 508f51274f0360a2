/** The benchmark's own arithmetic, its ONNX writer, its reasons for skipping, and its exit code. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { busyBetween } from "../lib/bench/machine.ts";
import { aboveWeights, peakMemory } from "../lib/bench/memory.ts";
import { OnnxGraph } from "../lib/bench/onnx.ts";
import { findOrt, ORT_MISSING } from "../lib/bench/ort.ts";
import { pairMacs, pairModel, pairPlan } from "../lib/bench/pair_graphs.ts";
import { benchPeers } from "../lib/bench/peers.ts";
import { activationGrid, quantiseWeight } from "../lib/bench/qdq_onnx.ts";
import {
  factRow,
  missedRows,
  type Row,
  skippedRow,
  tableText,
  timeRow,
  valueRow,
  verdict,
} from "../lib/bench/rows.ts";
import { type BenchResult, runSuites, SUITES } from "../lib/bench/run.ts";
import { keepingBackend, type Suite } from "../lib/bench/suite.ts";
import { checkSwinir, swinirRanges } from "../lib/bench/swinir_check.ts";
import { swinirModel } from "../lib/bench/swinir_onnx.ts";
import { interleave, medianInterval, median, perStep, timingOf } from "../lib/bench/timing.ts";
import { findPython, startTorch } from "../lib/bench/torch.ts";
import { native } from "../lib/binding.ts";
import { reportBench } from "../lib/cli/commands/bench.ts";
import { defineCommand } from "../lib/cli/args.ts";
import { runMain } from "../lib/cli/main.ts";
import { readWeights } from "../lib/io/weights.ts";
import { hasTestData, testData } from "./data.ts";

const ort = findOrt();
const hasOrt = typeof ort !== "string";
const TINY = join(import.meta.dirname, "fixtures", "tiny-x2.safetensors");

describe("timing", () => {
  test("sides are sampled in turn, after a first round that is thrown away", async () => {
    const calls: string[] = [];
    const side = (name: string) => ({
      prepare: () => void calls.push(`prepare ${name}`),
      run: () => void calls.push(name),
      reports: true,
    });
    const reported = { ...side("b"), run: async () => calls.push("b") && 0.02 };
    const first = { ...side("a"), run: () => calls.push("a") && 0.01 };
    const [a, b] = await interleave([first, reported], { runs: 3, sampleSeconds: 0 });
    const rounds = calls.filter((name) => !name.startsWith("prepare")).slice(4);
    expect(rounds).toEqual(["a", "b", "a", "b", "a", "b"]);
    expect(calls.slice(-4)).toEqual(["prepare a", "a", "prepare b", "b"]);
    expect([a.median, b.median, a.samples.length]).toEqual([0.01, 0.02, 3]);
  });

  test("a short job is repeated until the sample is long enough, and divided again", async () => {
    let count = 0;
    const run = () => {
      count++;
      return 0.001;
    };
    const [timing] = await interleave([{ run, reports: true }], { runs: 2, sampleSeconds: 0.01 });
    expect(count).toBe(2 + 2 * 10);
    expect(timing.median).toBeCloseTo(0.001, 12);
  });

  test("an abort ends the measuring", async () => {
    const controller = new AbortController();
    const run = () => controller.abort(new Error("enough"));
    const options = { runs: 5, signal: controller.signal };
    await expect(interleave([{ run }, { run }], options)).rejects.toThrow("enough");
  });

  test("the median of an even count is the mean of the two in the middle", () => {
    expect([median([3, 1, 2]), median([4, 1, 3, 2])]).toEqual([2, 2.5]);
    expect(timingOf([3, 1, 2])).toMatchObject({ median: 2, min: 1 });
  });

  test("the cost of one step of a chain leaves out what every call costs", () => {
    const cost = (steps: number) => timingOf([0.5 + 0.1 * steps, 0.7 + 0.1 * steps]);
    const step = perStep(cost(8), cost(2), 6);
    expect([step.median, step.min]).toEqual([expect.closeTo(0.1, 9), expect.closeTo(0.1, 9)]);
  });
});

const text = { name: "a kernel", against: "a peer" };
const goal = { floor: 2, stretch: 4 };

describe("rows", () => {
  const row = (ours: number, peer: number): Row =>
    timeRow(text, timingOf([ours]), timingOf([peer]), goal);

  test("the ratio is the peer's median over ours, in milliseconds", () => {
    const made = timeRow(
      text,
      timingOf([0.002, 0.001, 0.009]),
      timingOf([0.01, 0.004, 0.006]),
      goal,
    );
    expect(made).toMatchObject({ ours: 2, peer: 6, unit: "ms", ratio: 3, floor: 2, stretch: 4 });
    expect(made).toMatchObject({ oursMin: 1, peerMin: 4, against: "a peer" });
  });

  test("a floor holds from equality on; a ratio that is no number misses it", () => {
    const verdicts = [row(1, 1.99), row(1, 2), row(1, 4), row(0, 0)].map(verdict);
    expect(verdicts).toEqual(["missed", "floor", "stretch", "missed"]);
  });

  test("never slower is missed only where the ratio's interval ends below the floor", () => {
    const ours = [1, 1, 1, 1, 1, 1, 1, 1, 1];
    const verdicts = [
      [0.9, 0.95, 0.97, 0.98, 0.99, 0.99, 0.99, 1.01, 1.2],
      [0.9, 0.95, 0.97, 0.98, 0.99, 0.99, 0.99, 0.99, 1.2],
    ].map((peer) => {
      const made = timeRow(text, timingOf(ours), timingOf(peer), {
        ...goal,
        floor: 1,
        neverSlower: true,
      });
      return [verdict(made), made.ratio, made.ratioUpTo];
    });
    expect(verdicts).toEqual([
      ["floor", 0.99, 1.01],
      ["missed", 0.99, 0.99],
    ]);
    expect(medianInterval([3, 1, 2])).toEqual([1, 3]);
  });

  test("rows without a goal and skipped rows never fail a run", () => {
    const rows = [
      timeRow(text, timingOf([2]), timingOf([1])),
      factRow("arena", "MiB", 100),
      skippedRow(text, "the peer is not installed", goal, timingOf([0.003])),
    ];
    expect(missedRows(rows)).toEqual([]);
    expect(rows[2]).toMatchObject({ ours: 3, peer: null, ratio: null, floor: 2, stretch: 4 });
    expect(missedRows([...rows, row(1, 1)])).toHaveLength(1);
  });

  test("the table names every row, with its reason or note below it", () => {
    const rows = [
      row(1, 5),
      row(1, 1),
      skippedRow(text, "no Python", goal),
      factRow("f", "%", 12.345),
    ];
    const lines = tableText(rows).split("\n");
    expect(lines[0]).toMatch(/^bench +ours +peer +unit +ratio +floor +stretch$/);
    expect(lines[1]).toMatch(/^a kernel \| a peer +1000 +5000 +ms +5 +2 +4 +stretch$/);
    expect(lines[2]).toMatch(/1 +2 +4 +MISSED$/);
    expect(lines[4]).toBe("    skipped: no Python");
    expect(lines[5]).toMatch(/^f +12\.3 +- +%/);
  });

  test("memory counts above baseline and weights, and larger is worse", () => {
    const peak = (mebibytes: number) => ({
      baseline: 50e6,
      peak: 50e6 + mebibytes * 2 ** 20,
      weights: 0,
    });
    const [ours, peer] = [aboveWeights(peak(10)), aboveWeights(peak(200))];
    expect(valueRow(text, "MiB", ours, peer).ratio).toBeCloseTo(20, 9);
    expect(aboveWeights({ baseline: 9, peak: 8, weights: 7 })).toBe(4096);
  });

  test("others' processor time is what is left beside one's own", () => {
    const at = (seconds: number, wall: number) => ({ seconds, wall });
    expect(busyBetween(at(10, 100), at(13, 102))).toBe(1.5);
    expect(busyBetween(at(10, 100), at(9.9, 102))).toBe(0);
    expect(busyBetween(null, at(1, 1))).toBeNull();
  });
});

/** One protobuf field: its number, and a number or bytes. */
type Field = readonly [number, number | bigint | Uint8Array];

/** Reads a protobuf message without knowing its type. */
function readFields(bytes: Uint8Array): Field[] {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  const fields: Field[] = [];
  while (at < bytes.length) {
    const key = Number(varint());
    if ((key & 7) === 0) fields.push([key >> 3, BigInt.asIntN(64, varint())]);
    else {
      const length = (key & 7) === 5 ? 4 : Number(varint());
      fields.push([key >> 3, Uint8Array.from(bytes.subarray(at, at + length))]);
      at += length;
    }
  }
  expect(at).toBe(bytes.length);
  return fields;
}

const all = (fields: readonly Field[], number: number) =>
  fields.filter(([field]) => field === number).map(([, value]) => value);
const message = (fields: readonly Field[], number: number) =>
  readFields(all(fields, number)[0] as Uint8Array);
const word = (value: unknown) => Buffer.from(value as Uint8Array).toString();

/** A model with every kind of attribute and constant. */
function sampleModel(): Uint8Array {
  const g = new OnnxGraph();
  const x = g.input("x", [2, 300]);
  const w = g.constant(Float32Array.of(1.5, -2), [2]);
  const parts = g.nodes("Split", [x, g.constant([-1, 2 ** 40])], { axis: -1 }, 2);
  const y = g.node("Made", [parts[1], "", w], {
    mode: "CRD",
    perm: [0, -3],
    epsilon: { float: 0.5 },
  });
  g.constant(Int8Array.of(-128, 127));
  g.output("y", y, [7]);
  return g.bytes();
}

describe("the ONNX writer", () => {
  test("models read back: versions, graph, names of inputs and outputs", () => {
    const model = readFields(sampleModel());
    expect(all(model, 1)).toEqual([9n]);
    expect(all(message(model, 8), 2)).toEqual([20n]);
    const graph = message(model, 7);
    const named = (number: number) =>
      all(graph, number).map((part) => word(all(readFields(part as Uint8Array), 1)[0]));
    expect([named(11), named(12)]).toEqual([["x"], ["y"]]);
    const type = message(message(message(graph, 11), 2), 1);
    const sides = all(message(type, 2), 1).map((d) => all(readFields(d as Uint8Array), 1)[0]);
    expect([all(type, 1), sides]).toEqual([[1n], [2n, 300n]]);
  });

  test("nodes keep their operands, an absent one too, and their attributes", () => {
    const nodes = all(message(readFields(sampleModel()), 7), 1).map((n) =>
      readFields(n as Uint8Array),
    );
    expect(nodes.map((node) => word(all(node, 4)[0]))).toEqual(["Split", "Made", "Identity"]);
    expect(all(nodes[0], 2)).toHaveLength(2);
    const inputs = all(nodes[1], 1).map(word);
    expect([inputs[0], inputs[1]]).toEqual([word(all(nodes[0], 2)[1]), ""]);
    const attributes = all(nodes[1], 5).map((part) => readFields(part as Uint8Array));
    const [mode, perm, epsilon] = attributes;
    expect([word(all(mode, 4)[0]), all(mode, 20)]).toEqual(["CRD", [3n]]);
    expect([all(perm, 8), all(perm, 20)]).toEqual([[0n, -3n], [7n]]);
    expect(new DataView((all(epsilon, 2)[0] as Uint8Array).buffer).getFloat32(0, true)).toBe(0.5);
    const [axis] = all(nodes[0], 5).map((part) => readFields(part as Uint8Array));
    expect([all(axis, 3), all(axis, 20)]).toEqual([[-1n], [2n]]);
  });

  test("constants keep type, shape and raw little-endian data", () => {
    const constants = all(message(readFields(sampleModel()), 7), 5);
    const read = constants.map((part) => readFields(part as Uint8Array));
    expect(read.map((tensor) => [all(tensor, 1), all(tensor, 2)])).toEqual([
      [[2n], [1n]],
      [[2n], [7n]],
      [[2n], [3n]],
    ]);
    const raw = read.map((tensor) => (all(tensor, 9)[0] as Uint8Array).buffer);
    expect(new Float32Array(raw[0])).toEqual(Float32Array.of(1.5, -2));
    expect(new BigInt64Array(raw[1])).toEqual(BigInt64Array.of(-1n, 2n ** 40n));
    expect(new Int8Array(raw[2])).toEqual(Int8Array.of(-128, 127));
  });

  test("a range's grid holds 0 exactly, also where the range does not", () => {
    for (const range of [
      { min: -1, max: 3 },
      { min: 2, max: 5 },
      { min: -7, max: -1 },
    ]) {
      const { scale, zero } = activationGrid(range);
      expect(zero).toBeGreaterThanOrEqual(0);
      expect(zero).toBeLessThanOrEqual(255);
      expect((0 - zero) * scale).toBeLessThanOrEqual(range.min + scale);
      expect((255 - zero) * scale).toBeGreaterThanOrEqual(range.max - scale);
    }
  });

  test("weights get one symmetric scale an output", () => {
    const weight = Float32Array.of(1, -0.25, 0.25, 4);
    const { codes, scales } = quantiseWeight({ weight, bias: new Float32Array(2), shape: [2, 2] });
    expect([...codes]).toEqual([127, -32, 8, 127]);
    expect([...scales].map((scale) => scale * 127)).toEqual([
      expect.closeTo(1, 6),
      expect.closeTo(4, 6),
    ]);
  });

  test.skipIf(!hasOrt)("ONNX Runtime runs a written pair, INT8 close to float", async () => {
    if (typeof ort === "string") return;
    const shape = { rows: 5, narrow: 6, wide: 10 };
    const input = ort.tensor(
      [5, 6],
      Float32Array.from({ length: 30 }, (_, i) => Math.sin(i)),
    );
    const results: Float32Array[] = [];
    for (const int8 of [false, true]) {
      const session = await ort.session(pairModel(shape, 1, int8), 1);
      results.push((await session.run({ x: input })).y.data);
    }
    const largest = Math.max(...results[0].map((value, i) => Math.abs(value - results[1][i])));
    expect(Math.max(...results[0].map(Math.abs))).toBeGreaterThan(0.3);
    expect(largest).toBeLessThan(0.1);
  });
});

describe.skipIf(!hasOrt || !hasTestData)("SwinIR-light in ONNX Runtime", () => {
  test("the float graph reproduces the golden forward within 1e-3", async () => {
    if (typeof ort === "string") return;
    const { tensors } = await readWeights(testData("golden/swinir-light-x4/checkpoint.pth"));
    expect(await checkSwinir(ort, tensors, testData("golden"))).toBeLessThan(1e-4);
  });

  test("calibration finds a range for every product", async () => {
    if (typeof ort === "string") return;
    const { tensors } = await readWeights(testData("golden/swinir-light-x4/checkpoint.pth"));
    const { products } = swinirModel(tensors, { height: 8, width: 8 });
    const ranges = await swinirRanges(ort, tensors);
    expect([...ranges.keys()]).toEqual(products);
    expect(products).toHaveLength(24 * 4 + 4 + 2);
    for (const { min, max } of ranges.values()) expect(max).toBeGreaterThan(min);
  });
});

describe("peers that are missing", () => {
  test("onnxruntime-node is looked for in the given folders only, and the reason says how", () => {
    expect(findOrt([])).toBe(ORT_MISSING);
    expect(ORT_MISSING).toContain("npm install");
  });

  test("a Python without PyTorch, or none, is a reason and no error", async () => {
    expect(findPython("/nonexistent/python")).toMatch(/^no PyTorch in \/nonexistent\/python;/);
    expect(await startTorch("no_such_peer.py", [], "x")).toMatch(/run from a checkout/);
    expect(await startTorch("mambairv2_torch.py", [], undefined, undefined, null)).toMatch(
      /SPR2Q_TEST_DATA/,
    );
  });

  test("the memory row needs the compiled program and says so", async () => {
    expect(await peakMemory("plan", TINY, 16, 16, 1)).toMatch(/npm run build:ts/);
  });

  test("without checkpoints every row of the suite is listed with its reason", async () => {
    const rows: Row[] = [];
    await benchPeers(suiteInto(rows));
    expect(rows).toHaveLength(5);
    for (const row of rows) {
      expect(row.skipped).toMatch(/SPR2Q_TEST_DATA/);
      expect(row.floor).toBeGreaterThan(1);
    }
  });
});

/** A suite without data, models or peers that collects its rows. */
function suiteInto(rows: Row[]): Suite {
  return {
    runs: 1,
    threads: 1,
    packed: [],
    ort: ORT_MISSING,
    profile: false,
    row: (row) => void rows.push(row),
    say: () => {},
    version: () => {},
  };
}

/** Runs a command line of one command; returns exit code and stdout. */
async function run(argv: readonly string[], commands?: Parameters<typeof runMain>[1]["commands"]) {
  let out = "";
  const code = await runMain(argv, {
    out: (chunk) => {
      out += chunk;
    },
    err: () => {},
    errIsTty: false,
    columns: 80,
    signal: new AbortController().signal,
    now: () => 0,
    commands,
  });
  return { code, out };
}

/** The report of `rows` through the real command line, as JSON and as text. */
async function reported(rows: readonly Row[]) {
  const { machine } = await runSuites([], {
    runs: 1,
    threads: 1,
    packed: [],
    profile: false,
    say: () => {},
  });
  const result: BenchResult = { machine, rows };
  const command = defineCommand({
    name: "bench",
    summary: "reports",
    usage: "",
    options: [],
    run: async (ctx) => reportBench(ctx, result),
  });
  const commands = [{ name: "bench", summary: "", load: async () => ({ command }) }];
  return { json: await run(["bench", "--json"], commands), text: await run(["bench"], commands) };
}

describe("the command", () => {
  const good = timeRow(text, timingOf([1]), timingOf([3]), goal);
  const bad = timeRow(text, timingOf([1]), timingOf([1]), goal);

  test("a floor that is missed gives exit code 1, and the rows are printed all the same", async () => {
    const { json, text: plain } = await reported([good, bad]);
    expect([json.code, plain.code]).toEqual([1, 1]);
    expect(plain.out).toContain("1 of 2 rows miss their floor");
    expect(JSON.parse(json.out).rows).toHaveLength(2);
  });

  test("rows that hold, inform or were skipped give exit code 0", async () => {
    const { json } = await reported([
      good,
      factRow("f", "%", 1),
      skippedRow(text, "no peer", goal),
    ]);
    expect(json.code).toBe(0);
    const { machine, rows } = JSON.parse(json.out);
    expect(rows[0]).toMatchObject({ name: "a kernel", ours: 1000, peer: 3000, ratio: 3 });
    expect(rows[2]).toMatchObject({ skipped: "no peer", ratio: null });
    expect(machine).toMatchObject({ node: process.versions.node, threads: 1 });
    expect(machine.cpu).not.toBe("");
    expect(machine.isas).toContain("reference");
    expect(machine.loadBefore).toBeGreaterThanOrEqual(0);
    expect(Object.keys(machine.versions)).toContain("spr2q");
  });

  test("an unknown suite is refused with exit code 2", async () => {
    expect((await run(["bench", "--suite", "gpu"])).code).toBe(2);
    expect(SUITES).toEqual(["kernels", "net", "peers", "train"]);
  });

  test("suite net runs the bundled model: plans, ratios, arenas, no goals", async () => {
    const argv = [
      "bench",
      "--suite",
      "net",
      "--runs",
      "1",
      "--threads",
      "1",
      "--model",
      TINY,
      "--json",
    ];
    const { code, out } = await run(argv);
    expect(code).toBe(0);
    const rows: Row[] = JSON.parse(out).rows;
    expect(
      rows.map((row) => row.name).filter((name) => /W[24]A[24], 1 thread$/.test(name)),
    ).toHaveLength(2);
    for (const row of rows) expect(row.ours).toBeGreaterThan(0);
    for (const row of rows.filter((r) => r.peer !== null)) expect(row.ratio).toBeGreaterThan(0);
  });
});

test("a suite that fails leaves threads and backend as they were", async () => {
  const [threads, backend] = [native().threads(), native().backendName()];
  const failing = keepingBackend(async () => {
    native().useBackend("reference");
    native().threads(1);
    throw new Error("broken");
  });
  await expect(failing).rejects.toThrow("broken");
  expect([native().threads(), native().backendName()]).toEqual([threads, backend]);
});

test("a chain of packed pairs runs as one plan, and its MACs are counted", async () => {
  const shape = { rows: 7, narrow: 12, wide: 20 };
  expect(pairMacs(shape)).toBe(2 * 7 * 12 * 20);
  for (const bits of [4, 2, 1]) expect(await pairPlan(shape, 2, bits).run()).toBe(true);
});
