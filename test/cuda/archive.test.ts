/**
 * bench/cuda/train.py without a GPU: an archive with the shim in the place of the CUDA library, a run
 * in parts, and the bytes of one that was never stopped.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { describeCuda, packageRoot } from "../../lib/binding.ts";
import { encodePng } from "../../lib/io/png.ts";
import { policyFor } from "../../lib/quant/policy.ts";
import { picture, writePackedModel, writeTinyModel } from "../cli/tiny_model.ts";

const { code, hostMemory } = describeCuda();
const shim = hostMemory && code === "OK" ? process.env.SPR2Q_CUDA_LIBRARY : undefined;
const tools = ["python3", "tar"].every((tool) => spawnSync(tool, ["--version"]).status === 0);
const bench = join(packageRoot(), "bench", "cuda");

test.skipIf(!shim || !tools)(
  "a run in parts ends in the bytes of a whole one (python3, tar)",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "spr2q-archive-"));
    try {
      mkdirSync(join(folder, "train"));
      for (const i of [0, 1]) {
        writeFileSync(join(folder, "train", `${i}.png`), encodePng(picture(32, 32, 3, 8, i)));
      }
      mkdirSync(join(folder, "models"));
      const model = await writeTinyModel(folder);
      const packed = await writePackedModel(join(folder, "models"), policyFor("best", 4));
      const archive = join(folder, "gpu.tar");
      const inputs = ["--model", model, "--train", join(folder, "train"), "--packed", packed];
      const pack = spawnSync(
        process.execPath,
        [join(bench, "pack.mjs"), archive, ...inputs, "--library", shim as string, "--fast"],
        { encoding: "utf8" },
      );
      expect(pack.status, pack.stderr).toBe(0);
      const options = ["--bits", "4", "--recipe", "quick", "--rank", "2", "--rectifiers", "2"];
      options.push("--iterations", "3", "--osrc", "2", "--batch", "1", "--patch", "16");
      const small = ["--frame", "16x16", "--runs", "3"];
      /** One part; with `steps`, it is stopped once that many more are in its log. */
      const part = (work: string, steps: number) => {
        const argv = [join(bench, "train.py"), archive, "--work", join(folder, work)];
        const env = { ...process.env, SPR2Q_CUDA_LIBRARY: "" };
        const limits = ["--seconds", "900", "--grace", "600", "--steps", `${steps}`];
        const all = [...argv, ...limits, ...small, "--", ...options];
        const { status, stdout, stderr } = spawnSync("python3", all, { encoding: "utf8", env });
        return { status, stderr, result: JSON.parse(stdout || "{}") };
      };
      const whole = part("whole", 0);
      expect(whole.status, whole.stderr).toBe(0);
      expect(whole.result.stepMs).toBeGreaterThan(0);
      expect(whole.result.frame).toMatchObject({ device: "cuda", same: true });
      const stopped = part("parts", 1);
      expect(stopped.status, stopped.stderr).toBe(5);
      expect(stopped.result.at).toMatch(/^rgt [12] of 3$/);
      const last = part("parts", 0);
      expect(last.status, last.stderr).toBe(0);
      expect(last.result.sha256).toBe(whole.result.sha256);
      const file = (work: string) => readFileSync(join(folder, work, "run", "model.safetensors"));
      expect(file("parts")).toEqual(file("whole"));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
