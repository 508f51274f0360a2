/**
 * Every function of the addon with hostile arguments: arrays that are detached, shared, resizable and
 * shrunk, too short, overlapping, of another type or no arrays; numbers that are none, negative, huge
 * or broken; missing and superfluous arguments. run.mjs loads the addon that counts where it has been.
 * What openCuda() opens and what adjustMemory() says are left out where they would be taken at their
 * word; runs of plans, which end later than a call here does, are in test/hazards/arguments.test.ts.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { native, packageRoot } from "../../../lib/binding.ts";
import { must, orRefusal } from "./outcome.ts";

type Kind = "F32" | "U8" | "I32" | "number";
interface Signature {
  readonly name: string;
  readonly kinds: readonly Kind[];
}

/** The ops, as binding.d.ts declares them. */
function signatures(): Signature[] {
  const source = readFileSync(join(packageRoot(), "binding.d.ts"), "utf8");
  const ops = new Set(native().opNames());
  return [...source.matchAll(/^ {2}(\w+)\(([^)]*)\): void;/gm)]
    .filter(([, name]) => ops.has(name))
    .map(([, name, list]) => ({
      name,
      kinds: [...list.matchAll(/: (F32|U8|I32|number)/g)].map(([, kind]) => kind as Kind),
    }));
}

const OPS = signatures();
const call = native() as unknown as Record<string, (...values: unknown[]) => unknown>;
const ARRAY = { F32: Float32Array, U8: Uint8Array, I32: Int32Array } as const;
const SIDES = [0, 1, 2, 3, 4, 5, 8, 16, 31, 64, 256, 1024] as const;
const HOSTILE: readonly unknown[] = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  -1,
  -0,
  0.5,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  -(2 ** 53),
  2 ** 52,
  1e300,
  3037000500,
  undefined,
  null,
  "4",
  4n,
  true,
  Symbol("4"),
  [],
  {},
  () => 4,
  new Date(4),
  new Float64Array(4),
  new DataView(new ArrayBuffer(16)),
  new Uint8ClampedArray(64),
  new BigInt64Array(8),
  new ArrayBuffer(64),
  { length: 4, 0: 1 },
  {
    valueOf: () => {
      throw new TypeError("no");
    },
  },
  new Proxy(new Float32Array(64), {}),
];
/** Arrays that many arguments of one call may share. */
const COMMON = new ArrayBuffer(4096);

class Choices {
  private at = 0;
  private readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  byte(): number {
    return this.at < this.bytes.length ? this.bytes[this.at++] : 0;
  }

  of<T>(list: readonly T[]): T {
    return list[this.byte() % list.length];
  }

  number(): unknown {
    const kind = this.byte();
    if (kind < 225) return kind % 12;
    return kind < 235 ? this.of(SIDES) : this.of(HOSTILE);
  }

  array(kind: keyof typeof ARRAY): unknown {
    const Type = ARRAY[kind];
    const how = this.byte();
    const length = this.of(SIDES);
    const bytes = length * Type.BYTES_PER_ELEMENT;
    if (how < 130) return new Type(length).fill(this.byte());
    if (how < 150) return null;
    if (how < 180)
      return new Type(COMMON, (this.byte() % 8) * Type.BYTES_PER_ELEMENT, length % 512);
    if (how < 195) return new Type(new SharedArrayBuffer(bytes));
    if (how < 215) return shrunk(Type, bytes);
    if (how < 235) return detached(Type, length);
    if (how < 245) return new Type(new ArrayBuffer(bytes + 8), Type.BYTES_PER_ELEMENT, length);
    return this.of(HOSTILE);
  }
}

function detached(Type: (typeof ARRAY)[keyof typeof ARRAY], length: number): unknown {
  const array = new Type(length);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

/** Over a buffer that has shrunk since, past some or all of it. */
function shrunk(Type: (typeof ARRAY)[keyof typeof ARRAY], bytes: number): unknown {
  const Resizable = ArrayBuffer as unknown as new (
    bytes: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer & { resize(bytes: number): void };
  const buffer = new Resizable(bytes, { maxByteLength: bytes + 64 });
  const array = bytes % 16 ? new Type(buffer) : new Type(buffer, 0, bytes / Type.BYTES_PER_ELEMENT);
  buffer.resize(bytes >> 1);
  return array;
}

/** The functions that are no ops. */
const OTHERS: readonly ((choices: Choices) => unknown)[] = [
  (c) => call.allocate(c.byte() < 200 ? c.byte() * 16 : c.of(HOSTILE)),
  (c) => call.useBackend(c.byte() < 128 ? c.of(native().backends()) : c.of(HOSTILE)),
  (c) => call.threads(c.byte() < 3 ? 1 + (c.byte() % 2) : c.of(HOSTILE)),
  (c) => call.peakBytes(c.of(HOSTILE)),
  (c) => call.adjustMemory(c.byte() < 64 ? 0 : c.of(HOSTILE.slice(9))),
  (c) => call.openCuda(c.of(HOSTILE)),
  (c) => call.releasePlan(c.of(HOSTILE)),
  (c) => call.runPlan(...Array.from({ length: c.byte() % 9 }, () => c.array("F32"))),
  (c) => {
    const code = Float64Array.from({ length: c.byte() % 64 }, () => Number(c.byte()) - 3);
    const constants = Array.from({ length: c.byte() % 3 }, () =>
      c.array(c.of(["F32", "U8", "I32"])),
    );
    const sizes = [c.number(), c.number(), c.number()];
    const plan = call.createPlan(
      c.byte() < 230 ? code : c.of(HOSTILE),
      c.byte() < 230 ? constants : c.of(HOSTILE),
      ...sizes,
    );
    call.releasePlan(plan);
    must(
      orRefusal(() => call.runPlan(plan, COMMON, COMMON, null, null, 0, null)) === null,
      "a released plan does not run",
    );
  },
];

export const words: string[] = [];

export function seeds(): Uint8Array[] {
  return [...OPS, ...OTHERS].map((_, op) =>
    Uint8Array.from({ length: 96 }, (_, i) => (i ? (i * 37 + op * 11) % 130 : op)),
  );
}

export function fuzz(input: Uint8Array): void {
  const choices = new Choices(input);
  const index = choices.byte();
  if (index >= OPS.length) {
    const other = OTHERS[(index - OPS.length) % OTHERS.length];
    orRefusal(() => other(choices));
    return;
  }
  const { name, kinds } = OPS[index];
  const values = kinds.map((kind) => (kind === "number" ? choices.number() : choices.array(kind)));
  const spare = choices.byte();
  if (spare > 250) values.pop();
  if (spare > 253) values.push(1, 2);
  orRefusal(() => call[name](...values));
}
