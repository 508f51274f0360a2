/** What a figure was measured on, and how busy the machine was with other work meanwhile. */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { describeNative, native } from "../binding.ts";

/** The facts that every run prints beside its rows. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  readonly isa: string;
  readonly isas: readonly string[];
  /** Kernel threads of the suites that do not say otherwise. */
  readonly threads: number;
  readonly node: string;
  readonly platform: string;
  readonly versions: Readonly<Record<string, string>>;
  /** Load averages over one minute. */
  readonly loadBefore: number;
  readonly loadAfter: number;
  /** Processor time of other processes during the run, in cores; null where unknown. */
  readonly othersBusy: number | null;
}

/** Busy and own processor seconds so far. */
export interface Busy {
  readonly seconds: number;
  readonly wall: number;
}

/** Ticks a second of /proc/stat: fixed by Linux's user interface. */
const TICKS = 100;

/**
 * Processor seconds of everything but this process and `children` since the machine started; null
 * outside Linux.
 */
export function othersBusySince(children: readonly number[] = []): Busy | null {
  try {
    const [user, nice, system, , , irq, softirq, steal] = readFileSync("/proc/stat", "latin1")
      .split("\n")[0]
      .trim()
      .split(/\s+/)
      .slice(1)
      .map(Number);
    const total = (user + nice + system + irq + softirq + steal) / TICKS;
    const own = [process.pid, ...children].reduce((sum, pid) => sum + processSeconds(pid), 0);
    return { seconds: total - own, wall: performance.now() / 1000 };
  } catch {
    return null;
  }
}

/** User and system seconds of a process and its children that have ended. */
function processSeconds(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS;
  } catch {
    return 0; // it has ended; its time counts with its parent's
  }
}

/** Cores that others kept busy between two readings. */
export function busyBetween(before: Busy | null, after: Busy | null): number | null {
  if (!before || !after || after.wall <= before.wall) return null;
  return Math.max(0, (after.seconds - before.seconds) / (after.wall - before.wall));
}

/** One-minute load average. */
export function load(): number {
  return loadavg()[0];
}

/** The facts of this machine; `versions` names the peers that were found. */
export function machineOf(
  threads: number,
  versions: Readonly<Record<string, string>>,
  busy: Pick<Machine, "loadBefore" | "loadAfter" | "othersBusy">,
): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memory: totalmem(),
    isa: native().backendName(),
    isas: native().backends(),
    threads,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    versions: { spr2q: describeNative().version ?? "unknown", ...versions },
    ...busy,
  };
}

/** One paragraph of them for people. */
export function machineText(machine: Machine): string {
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  const others =
    machine.othersBusy === null ? "" : `, others used ${machine.othersBusy.toFixed(2)} cores`;
  return (
    `${machine.cpu}, ${machine.cores} cores, ${(machine.memory / 2 ** 30).toFixed(1)} GiB; ` +
    `${machine.isa}, ${machine.threads} threads; Node ${machine.node}, ${versions.join(", ")}\n` +
    `load ${machine.loadBefore.toFixed(2)} before, ${machine.loadAfter.toFixed(2)} after${others}`
  );
}
