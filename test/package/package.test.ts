/** What would be published: its files and sizes, its binaries, and that it works where it is installed. */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { cp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { glibcOf, readLibrary } from "./elf.mjs";
import { app, bare, installed, node, place } from "./installed.ts";

const packed: { size: number; files: { path: string; size: number }[] } = JSON.parse(
  readFileSync(join(place, "packed.json"), "utf8"),
);
const paths = packed.files.map(({ path }) => path);
const prebuilds = paths.filter((path) => /^prebuilds\/linux.*\.node$/.test(path));
/** The C library's part of a Linux binary's name, as node-gyp-build tells them apart. */
const libc =
  process.platform !== "linux" ? "" : existsSync("/etc/alpine-release") ? "musl." : "glibc.";
const hasCuda = paths.some((path) => path.endsWith("libspr2q_cuda.so"));

describe("the tarball", () => {
  test("is at most 10 MB, 20 MB with CUDA", () => {
    console.log(`${(packed.size / 1e6).toFixed(2)} MB packed${hasCuda ? ", with CUDA" : ""}`);
    expect(packed.size).toBeLessThan(hasCuda ? 20e6 : 10e6);
  });

  test("holds what running and building need, and nothing else", () => {
    const kinds = [
      /^(LICENSE|README\.md|CHANGELOG\.md|package\.json|binding\.d\.ts|CMakeLists\.txt)$/,
      /^dist\/(lib\/.*\.(js|d\.ts)|binding\.d\.ts)$/,
      /^native\/.*\.(cpp|hpp|cu|cuh|map|md|txt)$/,
      /^prebuilds\/[a-z0-9]+-[a-z0-9]+\/(spr2q\.((glibc|musl)\.)?node|libspr2q_cuda\.so)$/,
      /^assets\/(model\/mambairv2-light-x[24](-w4)?\.(safetensors|log\.jsonl)|images\/[\w-]+\.png)$/,
      /^assets\/page\/[\w-]+\.(html|css|js|svg)$/,
    ];
    expect(paths.filter((path) => !kinds.some((kind) => kind.test(path)))).toEqual([]);
    for (const needed of ["dist/lib/index.js", "dist/lib/index.d.ts", "native/addon/addon.map"]) {
      expect(paths).toContain(needed);
    }
  });

  test("has no script that runs at install, and three dependencies", () => {
    const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
    const atInstall = ["preinstall", "install", "postinstall"];
    expect(Object.keys(manifest.scripts).filter((name) => atInstall.includes(name))).toEqual([]);
    expect(manifest.gypfile).toBe(false);
    const wanted = ["node-addon-api", "node-gyp-build", "pngjs"];
    expect(Object.keys(manifest.dependencies).sort()).toEqual(wanted);
    expect(
      readdirSync(join(app, "node_modules"))
        .filter((n) => n[0] !== ".")
        .sort(),
    ).toEqual([...wanted, "spr2q"].sort());
  });
});

describe("the binaries", () => {
  test("are there for this machine", () => {
    const name = `prebuilds/${process.platform}-${process.arch}/spr2q.${libc}node`;
    expect(paths).toContain(name);
  });

  test.each(prebuilds)("%s exports two symbols and needs glibc 2.36 at most", (path) => {
    const library = readLibrary(readFileSync(join(installed, path)));
    const { machine, exported, needed, versions } = library;
    expect(path).toContain(`-${machine}/`);
    expect([...exported].sort()).toEqual([
      "napi_register_module_v1",
      "node_api_module_get_api_version_v1",
    ]);
    console.log(`${path}: glibc 2.${glibcOf(library)}, needs ${needed.join(", ")}`);
    expect(glibcOf(library)).toBeLessThanOrEqual(36);
    expect(versions.filter((version: string) => /GLIBCXX|CXXABI/.test(version))).toEqual([]);
    const known = path.includes(".musl.") ? /^libc\.musl-/ : /^(libc|libm|ld-linux.*)\.so/;
    expect(needed.filter((name: string) => !known.test(name))).toEqual([]);
  });
});

describe("installed without compiler, network and scripts", () => {
  /** The application outside of this project, where no folder above has modules of its own. */
  const apart = mkdtempSync(join(tmpdir(), "spr2q-app-"));
  const there = (args: readonly string[]) => node(args, {}, apart);
  beforeAll(() => cp(app, apart, { recursive: true, verbatimSymlinks: true }));
  afterAll(() => rm(apart, { recursive: true, force: true }));

  test("there is no compiler on the path of these tests, and no module above them", () => {
    for (const tool of ["cc", "g++", "cmake", "make", "npm"]) {
      expect(spawnSync(tool, ["--version"], { env: { PATH: bare } }).error).toBeDefined();
    }
    for (let folder = dirname(apart); folder !== dirname(folder); folder = dirname(folder)) {
      expect(existsSync(join(folder, "node_modules")), folder).toBe(false);
    }
  });

  test("spr2q demo runs", async () => {
    const out = join(apart, "demo");
    const command = join(apart, "node_modules", ".bin", "spr2q");
    const { stdout } = await there([command, "demo", "--iterations", "2", "--out", out, "--json"]);
    expect(JSON.parse(stdout)).toBeTypeOf("object");
    expect(existsSync(join(out, "model.safetensors"))).toBe(true);
    expect(existsSync(join(out, "report.html"))).toBe(true);
  });

  test("import and require give the same library, and it upscales", async () => {
    const script = `
      import { createRequire } from "node:module";
      import * as esm from "spr2q";
      const cjs = createRequire(import.meta.url)("spr2q");
      {
        const upscaler = await esm.Upscaler.load("node_modules/spr2q/assets/model/mambairv2-light-x2.safetensors");
        const data = new Uint8Array(16 * 16 * 3).fill(90);
        const { width } = await upscaler.run({ width: 16, height: 16, channels: 3, depth: 8, data });
        console.log(JSON.stringify({ same: esm.Upscaler === cjs.Upscaler, width }));
      }`;
    const { stdout } = await there(["--input-type=module", "-e", script]);
    expect(JSON.parse(stdout)).toEqual({ same: true, width: 32 });
  });

  test("the addon that runs is the prebuilt one", async () => {
    const script = `
      import "spr2q";
      const { native } = await import("./node_modules/spr2q/dist/lib/binding.js");
      native();
      const { sharedObjects } = process.report.getReport();
      console.log(sharedObjects.find((name) => name.includes("spr2q")));`;
    const { stdout } = await there(["--input-type=module", "-e", script]);
    const folder = join(apart, "node_modules", "spr2q", "prebuilds");
    expect(realpathSync(dirname(stdout.trim()))).toBe(
      realpathSync(join(folder, `${process.platform}-${process.arch}`)),
    );
  });

  test("its types hold for a strict program that uses them", async () => {
    const source = `
      import { evaluate, quantize, type Stats, Upscaler } from "spr2q";
      export async function main(): Promise<number> {
        const upscaler = await Upscaler.load("m", { tile: 64, threads: 2 });
        for await (const { y, data } of upscaler.stream(await upscaler.read("x"))) y + data.length;
        for await (const event of quantize("m", { bits: 4, train: "t", out: "o" })) {
          if (event.type === "step") event.loss.toFixed();
        }
        const stats: Stats = upscaler.stats();
        // @ts-expect-error bits are a number
        quantize("m", { bits: "four", train: "t", out: "o" });
        return (await evaluate("m", { hr: "h" })).psnr + stats.queued;
      }`;
    await writeFile(join(app, "strict.mts"), source);
    const tsc = join(packageRoot(), "node_modules", "typescript", "bin", "tsc");
    const types = ["--typeRoots", join(packageRoot(), "node_modules", "@types"), "--types", "node"];
    const flags = [
      "--strict",
      "--noEmit",
      "--module",
      "nodenext",
      "--ignoreConfig",
      "--target",
      "es2023",
    ];
    const lib = ["--lib", "es2023,esnext.disposable"];
    const checked = await node([tsc, ...flags, ...lib, ...types, "strict.mts"]).catch((e) => e);
    expect(checked.stdout).toBe("");
    expect(checked.code).toBeUndefined();
  });

  test("where no binary fits, the error says what to do", async () => {
    const empty = join(place, "empty");
    await rm(empty, { recursive: true, force: true });
    await cp(app, empty, { recursive: true, verbatimSymlinks: true });
    await rm(join(empty, "node_modules", "spr2q", "prebuilds"), { recursive: true });
    const command = join(empty, "node_modules", ".bin", "spr2q");
    const model = join(installed, "assets", "model", "mambairv2-light-x2.safetensors");
    const picture = join(installed, "assets", "images", "wall.png");
    const args = [command, "upscale", picture, "-o", join(empty, "x.png"), "--model", model];
    const failed = await node([...args, "--json"], {}, empty).catch((error) => error);
    const { code, message } = JSON.parse(failed.stdout).error;
    expect(failed.code).toBe(1);
    expect(code).toBe("ERR_NO_BINARY");
    expect(message).toContain(`${process.platform}-${process.arch}`);
    expect(message).toContain("npx spr2q build");
    await rm(empty, { recursive: true });
  });
});

/** The arm64 Node under an emulator, which `npm run test:arm64` leaves behind. */
const arm64Node = join(packageRoot(), "build-arm64", "node-max");
const hasArm64 = existsSync(arm64Node) && prebuilds.some((path) => path.includes("linux-arm64"));
if (!hasArm64) console.log("linux-arm64 is not run: npm run test:arm64 has left no emulator");

test.skipIf(!hasArm64)(
  "the arm64 binary upscales as this machine's does, to rounding",
  async () => {
    const script = `
    import { Upscaler } from "spr2q";
    const model = "node_modules/spr2q/assets/model/mambairv2-light-x2.safetensors";
    const upscaler = await Upscaler.load(model, { routing: "argmax" });
    const data = Uint8Array.from({ length: 24 * 20 * 3 }, (_, i) => (i * 7) % 200);
    const large = await upscaler.run({ width: 24, height: 20, channels: 3, depth: 8, data });
    console.log(JSON.stringify({ isa: upscaler.stats().isa, data: [...large.data] }));`;
    const args = ["--input-type=module", "-e", script];
    const here = JSON.parse((await node(args)).stdout);
    const env = { ...process.env, PREBUILDS_ONLY: "1" };
    const there = JSON.parse(
      (await promisify(execFile)(arm64Node, args, { cwd: app, env })).stdout,
    );
    console.log(`${here.isa} here, ${there.isa} there`);
    expect(there.isa).toMatch(/^neon/);
    const off = here.data.map((value: number, i: number) => Math.abs(value - there.data[i]));
    expect(off.length).toBe(48 * 40 * 3);
    expect(Math.max(...off)).toBeLessThanOrEqual(1);
  },
);
