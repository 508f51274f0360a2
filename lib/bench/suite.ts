/** What every suite gets, and how it hands over its rows. */
import { native } from "../binding.ts";
import type { Ort } from "./ort.ts";
import type { Row } from "./rows.ts";
import type { TimingOptions } from "./timing.ts";

/** Everything that a suite may ask for. */
export interface Suite {
  /** Samples a side. */
  readonly runs: number;
  /** Threads of whole networks and of training; kernels say theirs. */
  readonly threads: number;
  readonly signal?: AbortSignal;
  /** Full-precision model and quantised files given on the command line. */
  readonly model?: string;
  readonly packed: readonly string[];
  /** Full-precision SwinIR-light checkpoint given on the command line. */
  readonly swinir?: string;
  /** Folder with weights/ and golden/, where the official files lie. */
  readonly data?: string;
  /** Python with PyTorch given on the command line. */
  readonly python?: string;
  /** onnxruntime-node, or why it cannot be used. */
  readonly ort: Ort | string;
  /** Prints the time by step of every plan. */
  readonly profile: boolean;
  /** Takes a finished row. */
  row(row: Row): void;
  /** Prints a line for people. */
  say(text: string): void;
  /** Notes the version of a peer for the machine's facts. */
  version(name: string, version: string): void;
}

/** Timing options of a suite. */
export function timing({ runs, signal }: Suite, runsAtMost = runs): TimingOptions {
  return { runs: Math.min(runs, runsAtMost), signal };
}

/** A preparation that chooses threads and backend, cheap where nothing changes. */
export function onBackend(threads: number, backend: string): () => void {
  return () => {
    if (native().threads() !== threads) native().threads(threads);
    if (native().backendName() !== backend) native().useBackend(backend);
  };
}

/** Runs `body` and puts threads and backend back, whatever happens. */
export async function keepingBackend<T>(body: () => Promise<T>): Promise<T> {
  const [threads, backend] = [native().threads(), native().backendName()];
  try {
    return await body();
  } finally {
    onBackend(threads, backend)();
  }
}
