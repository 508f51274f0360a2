/** The backends that the addon offers are those that the kernel says this processor can run. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { native } from "../lib/binding.ts";

const AT_HWCAP = 16n;
const HWCAP_ASIMDDP = 1n << 20n;

/** Whether the processor has dot products, from the vector that the kernel starts a process with. */
function hasDotProducts(): boolean {
  const entries = new BigUint64Array(Uint8Array.from(readFileSync("/proc/self/auxv")).buffer);
  const at = entries.findIndex((type, i) => i % 2 === 0 && type === AT_HWCAP);
  return at >= 0 && (entries[at + 1] & HWCAP_ASIMDDP) !== 0n;
}

function hasFlags(...names: string[]): boolean {
  const flags =
    /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1].split(" ") ?? [];
  return names.every((name) => flags.includes(name));
}

const vectors: Record<string, () => string[]> = {
  arm64: () => [...(hasDotProducts() ? ["neon_dotprod"] : []), "neon"],
  x64: () => {
    const avx2 = hasFlags("avx2", "fma", "f16c");
    const more = ["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"];
    return [...(avx2 && hasFlags(...more) ? ["avx512"] : []), ...(avx2 ? ["avx2"] : [])];
  },
};

test.skipIf(process.platform !== "linux" || !(process.arch in vectors))(
  "the backends are what this processor can run, best first, and the best is the default",
  () => {
    const expected = [...vectors[process.arch](), "portable", "reference"];
    expect(native().backends()).toEqual(expected);
    expect(native().backendName()).toBe(expected[0]);
  },
);

test("a backend of another processor, or of none, is refused by name", () => {
  const others = ["avx512", "avx2", "neon_dotprod", "neon", "NEON", ""];
  const absent = others.filter((name) => !native().backends().includes(name));
  expect(absent.length).toBeGreaterThanOrEqual(4);
  for (const name of absent) expect(() => native().useBackend(name), name).toThrow();
});
