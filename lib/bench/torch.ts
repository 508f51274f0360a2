/**
 * PyTorch as a peer: bench/peers/*.py in a process of its own, asked for one forward at a time, so
 * that its samples and ours alternate.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "../binding.ts";

/** Seconds that a peer may take to load, check itself and warm up. */
const START_SECONDS = 180;
/** Milliseconds that `import torch` may take. */
const IMPORT_MS = 60_000;

/** Where Debian keeps matrix libraries; the first is what its python3-torch comes with. */
const DEBIAN = `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`;
const BLAS_FOLDERS = ["blas", "openblas-openmp", "openblas-pthread"].map((name) =>
  join(DEBIAN, name),
);

/** A pinned kernel would slow OpenBLAS; the peer checks its results before it is timed. */
const PINNED = ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"];

/** `folder` comes first where PyTorch looks for libblas.so.3; null: whatever it finds. */
function environment(data: string, folder: string | null): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, SPR2Q_TEST_DATA: data };
  for (const name of PINNED) delete env[name];
  if (folder) env.LD_LIBRARY_PATH = [folder, env.LD_LIBRARY_PATH].filter(Boolean).join(":");
  return env;
}

/** A running peer. */
export interface TorchPeer {
  readonly version: string;
  /** The matrix library that it has mapped. */
  readonly blas: string;
  readonly pid: number;
  /** Seconds of one forward, as the peer measured it. */
  forward(): Promise<number>;
  /** Ends the process and waits for it, so that its time counts as ours. */
  stop(): Promise<void>;
}

/** A Python with PyTorch, or why there is none. */
export function findPython(given?: string): { readonly path: string } | string {
  const candidates = given ? [given] : ["python3", "/usr/bin/python3"];
  for (const path of candidates) {
    const options = { timeout: IMPORT_MS, encoding: "utf8" } as const;
    if (spawnSync(path, ["-c", "import torch"], options).status === 0) return { path };
  }
  return `no PyTorch in ${candidates.join(" or ")}; bench/peers/README.md says how to install it`;
}

/**
 * A peer for each matrix library, first the one that Debian installs with PyTorch. Whoever takes a
 * peer stops it. Where there is none, the one string says why.
 */
export async function* torchPeers(
  script: string,
  args: readonly string[],
  data: string | undefined,
  given: string | undefined,
): AsyncGenerator<TorchPeer | string> {
  const folders = BLAS_FOLDERS.filter((folder) => existsSync(join(folder, "libblas.so.3")));
  const seen = new Set<string>();
  for (const folder of folders.length ? folders : [null]) {
    const peer = await startTorch(script, args, data, given, folder);
    if (typeof peer === "string") {
      if (seen.size === 0) yield peer;
      return;
    }
    if (seen.has(peer.blas)) {
      await peer.stop();
      continue;
    }
    seen.add(peer.blas);
    yield peer;
  }
}

/** Starts a peer script and waits until it has checked and warmed itself; a string says why not. */
export async function startTorch(
  script: string,
  args: readonly string[],
  data: string | undefined,
  given: string | undefined,
  blasFolder: string | null,
): Promise<TorchPeer | string> {
  const path = join(packageRoot(), "bench", "peers", script);
  if (!existsSync(path)) return `bench/peers/${script} is not here: run from a checkout of spr2q`;
  if (!data) return "the peer checks itself against official files: set SPR2Q_TEST_DATA";
  const python = findPython(given);
  if (typeof python === "string") return python;
  const child = spawn(python.path, [path, ...args, "--serve"], {
    env: environment(data, blasFolder),
    stdio: ["pipe", "pipe", "pipe"],
  });
  return connect(child);
}

async function connect(child: ChildProcess): Promise<TorchPeer | string> {
  let complaint = "";
  child.stderr?.on("data", (text) => {
    complaint = `${complaint}${text}`.slice(-2000);
  });
  child.once("error", (error) => {
    complaint = error.message;
  });
  child.stdin?.on("error", () => {}); // the reader below notices that the peer has gone
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const timer = setTimeout(() => child.kill(), START_SECONDS * 1000);
  const first = await lines.next();
  clearTimeout(timer);
  if (first.done) {
    const reason = complaint.trim().split("\n").at(-1);
    return `the PyTorch peer ended before it was ready: ${reason ?? "it said nothing"}`;
  }
  let ready: { torch: string; blas: string };
  try {
    ready = JSON.parse(first.value);
  } catch {
    child.kill();
    return `the PyTorch peer began with "${first.value.slice(0, 80)}" instead of its report`;
  }
  return {
    version: ready.torch,
    blas: ready.blas,
    pid: child.pid!,
    forward: async () => {
      child.stdin?.write("\n");
      const line = await lines.next();
      if (line.done) throw new Error(`the PyTorch peer ended: ${complaint.trim().slice(-200)}`);
      return (JSON.parse(line.value) as { seconds: number }).seconds;
    },
    stop: async () => {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill();
      await ended;
    },
  };
}
