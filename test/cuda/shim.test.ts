/** The host shim under the kernels: it is there, it finds faults, and it is really what runs. */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { describeCuda, native } from "../../lib/binding.ts";
import { on, random, zeros } from "../ops/harness.ts";

const library = process.env.SPR2Q_CUDA_LIBRARY ?? "";

describe.skipIf(library === "")("the host shim (npm run test:cuda sets SPR2Q_CUDA_LIBRARY)", () => {
  test("the library opens, says that its memory is host memory, and is a backend", () => {
    expect(describeCuda()).toMatchObject({ code: "OK", hostMemory: true });
    expect(native().backends()).toContain("cuda-shim");
    expect(native().backends()[0]).not.toBe("cuda-shim"); // never chosen unasked
  });

  test("missing barriers, barrier mismatches and lone lanes are found", () => {
    const { status, stdout } = spawnSync(join(dirname(library), "selfcheck"), {
      encoding: "utf8",
    });
    expect(stdout).not.toContain("FAIL");
    expect(stdout).toContain("0 failures");
    expect(status).toBe(0);
  });

  test("a vector load between two vectors ends the process, as a GPU would end the context", () => {
    const check = join(dirname(library), "selfcheck");
    const { status, stdout, stderr } = spawnSync(check, ["misaligned"], { encoding: "utf8" });
    expect(stderr).toMatch(/misaligned address .*float4/);
    expect(stdout).toBe("");
    expect(status).not.toBe(0);
  });

  test("what a kernel cannot do is a coded error, and the next call is unaffected", () => {
    const order = Int32Array.of(7);
    on("cuda-shim", () => {
      expect(() => native().sortTokens(Int32Array.of(0), order, null, 1, 1, 2 ** 31)).toThrow(
        /sort_tokens: (needs|ERR_CUDA_BAD_ARGUMENT)/,
      );
      expect(order[0]).toBe(7);
      native().sortTokens(Int32Array.of(0), order, null, 1, 1, 2);
      expect(order[0]).toBe(0);
    });
  });

  test("a plan is refused on it rather than run without its failures", () => {
    on("cuda-shim", () => {
      expect(() => native().createPlan(new Float64Array(0), [], 0, 0, 0)).toThrow(/CUDA shim/);
    });
  });

  test("an op on it computes", () => {
    const [a, b, y] = [random(1000, 1), random(1000, 2), zeros(1000)];
    on("cuda-shim", () => native().add(a, b, y, 1000));
    expect(y).toEqual(a.map((value, i) => value + b[i]));
  });
});
