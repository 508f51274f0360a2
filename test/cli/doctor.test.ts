import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { command, cudaRow, doctorRows, machineFacts } from "../../lib/cli/commands/doctor.ts";
import { runMain } from "../../lib/cli/main.ts";
import { PUBLISHED_FILES } from "../../lib/models/published.ts";
import { hasTestData, testData } from "../data.ts";

const machine = { ...machineFacts(), node: "20.19.0", memory: 8 * 2 ** 30 };
const noCuda = { code: "ERR_CUDA_NO_DRIVER", text: "no driver", hostMemory: false, devices: [] };
const row = (name: string, rows: ReturnType<typeof doctorRows>) =>
  rows.find((r) => r.name === name);

describe("doctor", () => {
  test("a native half that is not loaded is bad, with the reason and the way to mend it", () => {
    const rows = doctorRows(machine, { loaded: false, reason: "no such file" }, noCuda);
    expect(row("Native addon", rows)).toMatchObject({ status: "bad", text: "no such file" });
    expect(row("Native addon", rows)?.fix).toContain("npx spr2q build");
    expect(row("Threads", rows)).toBeUndefined();
  });

  test("a loaded native half shows its instruction set, the others, threads and version", () => {
    const facts = { isa: "avx2", isas: ["avx2", "sse"], threads: 2, version: "1.2" };
    const rows = doctorRows(machine, { loaded: true, ...facts }, noCuda);
    expect(row("Native addon", rows)).toMatchObject({ status: "ok", text: "version 1.2" });
    expect(row("Instructions", rows)?.text).toBe("avx2 (this machine runs avx2, sse)");
    expect(row("Threads", rows)?.text).toBe("2");
  });

  test.each([
    ["18.20.0", "bad"],
    ["20.18.9", "bad"],
    ["20.19.0", "ok"],
    ["24.0.0", "ok"],
  ])("Node %s is %s", (node, status) => {
    expect(row("Node", doctorRows({ ...machine, node }, { loaded: true }, noCuda))?.status).toBe(
      status,
    );
  });

  test("why CUDA is off is said with its code and the way to mend it, and is no fault", () => {
    const cuda = row("CUDA", doctorRows(machine, { loaded: true }, noCuda));
    expect(cuda).toMatchObject({ status: "info", text: "off: no driver (ERR_CUDA_NO_DRIVER)" });
    expect(cuda?.fix).toContain("driver");
    for (const code of ["NO_LIBRARY", "BAD_LIBRARY", "DRIVER_TOO_OLD", "NO_DEVICE", "BUSY"]) {
      expect(cudaRow({ ...noCuda, code: `ERR_CUDA_${code}` }).fix, code).toBeTruthy();
    }
  });

  test("the CUDA library is built where the package lies, which is no clone where it is installed", () => {
    const { scripts } = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
    for (const code of ["NO_LIBRARY", "BAD_LIBRARY"]) {
      const { fix } = cudaRow({ ...noCuda, code: `ERR_CUDA_${code}` });
      const [, folder, script] = /npm run --prefix "([^"]+)" (\S+)$/.exec(fix ?? "") ?? [];
      expect(folder, fix).toBe(packageRoot());
      expect(scripts[script]).toContain("native/cuda");
    }
  });

  test("a GPU is named with its architecture and memory", () => {
    const devices = [{ name: "RTX 4090", architecture: 89, memoryBytes: 24 * 2 ** 30 }];
    expect(cudaRow({ code: "OK", text: "", hostMemory: false, devices })).toEqual({
      name: "CUDA",
      status: "ok",
      text: "RTX 4090, sm_89, 24.0 GiB",
    });
  });

  test("the official weights are named with their place, their sum and the command for them", () => {
    const rows = doctorRows(machine, { loaded: true }, noCuda);
    for (const { network, file, sha256 } of PUBLISHED_FILES) {
      expect(row(network, rows)?.text).toMatch(
        new RegExp(`^${file}, .*GitHub, SHA-256 ${sha256}$`),
      );
      expect(row(network, rows)?.fix).toContain(`quantize --model ${file} --bits 4`);
    }
  });

  test.runIf(hasTestData).each(PUBLISHED_FILES)(
    "$file here has the published sum",
    async ({ file, sha256 }) => {
      const bytes = await readFile(join(testData("weights"), file));
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(sha256);
    },
  );

  test("without the addon its reason is told once, and each row is one line", () => {
    const env = { ...process.env, SPR2Q_NATIVE: join(packageRoot(), "no-such.node") };
    const cli = join(packageRoot(), "dist", "lib", "cli", "main.js");
    const { stdout, status } = spawnSync(process.execPath, [cli, "doctor"], {
      env,
      encoding: "utf8",
    });
    expect(status).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines.filter((line) => !/^(ok|info|bad) {2,}\S| {26}\S/.test(line))).toEqual([]);
    expect(lines.filter((line) => line.includes("no-such.node")).length).toBe(1);
    expect(lines.find((line) => line.includes("CUDA"))).toContain("the native addon is not loaded");
  });

  test("--json prints machine, native half and rows as one object", async () => {
    let out = "";
    const code = await runMain(["doctor", "--json"], {
      out: (text) => {
        out += text;
      },
      err: () => {},
      errIsTty: false,
      columns: 80,
      signal: new AbortController().signal,
      now: () => 0,
      commands: [{ name: "doctor", summary: "", load: async () => ({ command }) }],
    });
    const report = JSON.parse(out);
    expect(code).toBe(0);
    expect(report.machine.node).toBe(process.versions.node);
    expect(typeof report.native.loaded).toBe("boolean");
    expect(report.healthy).toBe(report.rows.every((r: { status: string }) => r.status !== "bad"));
    expect(report.cuda.code).toMatch(/^(OK|ERR_CUDA_\w+)$/);
    expect(report.cuda.devices.length > 0).toBe(report.cuda.code === "OK");
  });
});
