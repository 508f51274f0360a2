/** A whole benchmark run: suites in order, rows, and the machine that they were measured on. */
import { native } from "../binding.ts";
import { benchKernels } from "./kernels.ts";
import { busyBetween, load, type Machine, machineOf, othersBusySince } from "./machine.ts";
import { benchNet } from "./net.ts";
import { findOrt } from "./ort.ts";
import { benchPeers } from "./peers.ts";
import type { Row } from "./rows.ts";
import { keepingBackend, type Suite } from "./suite.ts";
import { benchTrain } from "./train.ts";

/** Names of the suites, in the order in which they run. */
export const SUITES = ["kernels", "net", "peers", "train"] as const;
export type SuiteName = (typeof SUITES)[number];

const RUN: Readonly<Record<SuiteName, (suite: Suite) => Promise<void>>> = {
  kernels: benchKernels,
  net: benchNet,
  peers: benchPeers,
  train: benchTrain,
};

/** What a caller chooses; the rest of {@link Suite} is filled in here. */
export type BenchOptions = Omit<Suite, "ort" | "row" | "version">;

/** What a run measured. */
export interface BenchResult {
  readonly machine: Machine;
  readonly rows: readonly Row[];
}

/** Runs suites; `onRow` sees each row as soon as it is measured. */
export async function runSuites(
  names: readonly SuiteName[],
  options: BenchOptions,
  onRow: (row: Row) => void = () => {},
): Promise<BenchResult> {
  const rows: Row[] = [];
  const versions: Record<string, string> = {};
  const ort = findOrt();
  if (typeof ort !== "string") versions["onnxruntime-node"] = ort.version;
  const suite: Suite = {
    ...options,
    ort,
    row: (row) => {
      rows.push(row);
      onRow(row);
    },
    version: (name, version) => {
      versions[name] = version;
    },
  };
  const loadBefore = load();
  const before = othersBusySince();
  await keepingBackend(async () => {
    for (const name of names) await RUN[name](suite);
  });
  // A PyTorch peer has ended by now, so its time counts as this process's.
  const othersBusy = busyBetween(before, othersBusySince());
  native().useBackend(native().backends()[0]);
  const busy = { loadBefore, loadAfter: load(), othersBusy };
  return { machine: machineOf(options.threads, versions, busy), rows };
}
