/** Opening a CUDA library: what is wrong with it is told by code, and the CPU goes on. */
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { native, packageRoot } from "../../lib/binding.ts";
import { random, zeros } from "../ops/harness.ts";

const built = join(packageRoot(), "build", "Release", "libspr2q_cuda.so");

/** The CPU's answer is the same before and after. */
function addsStill(): void {
  const [a, y] = [random(100, 1), zeros(100)];
  native().add(a, a, y, 100);
  expect(y).toEqual(a.map((value) => 2 * value));
}

test("a path that holds no library is a bad library, with the loader's own words", () => {
  const before = native().backends();
  const file = join(mkdtempSync(join(tmpdir(), "spr2q-")), "libspr2q_cuda.so");
  expect(native().openCuda(file)).toMatchObject({ code: "ERR_CUDA_BAD_LIBRARY", devices: [] });
  writeFileSync(file, "not an ELF file");
  const status = native().openCuda(file);
  expect(status.code).toBe("ERR_CUDA_BAD_LIBRARY");
  expect(status.text).toContain("libspr2q_cuda.so");
  expect(native().backends()).toEqual(before);
  addsStill();
});

// The addon is a shared library too: it exports Node's entry points and nothing of CUDA.
const addon = process.env.SPR2Q_NATIVE ?? join(packageRoot(), "build", "Release", "spr2q.node");

test.skipIf(!existsSync(addon))("a library that is not ours is refused: the function lacks", () => {
  const status = native().openCuda(addon);
  expect(status.code).toBe("ERR_CUDA_BAD_LIBRARY");
  expect(status.text).toContain("spr2q_cuda_module");
  addsStill();
});

test.skipIf(!existsSync(built))(
  "the real library opens with or without a GPU and says which (npm run build:cuda)",
  () => {
    const status = native().openCuda(built);
    expect(status.hostMemory).toBe(false);
    if (status.code === "OK") expect(status.devices.length).toBeGreaterThan(0);
    else
      expect(status.code).toMatch(
        /^ERR_CUDA_(NO_DRIVER|NO_DEVICE|DRIVER_TOO_OLD|UNSUPPORTED_DEVICE|BUSY)$/,
      );
    expect(native().backends()).not.toContain("cuda"); // device pointers are no typed arrays
    addsStill();
  },
);
