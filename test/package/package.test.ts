/** What would be published: its files and sizes, its binaries, and that it works where it is installed. */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { cp, mkdir, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../lib/binding.ts";
import { readLibrary } from "./elf.ts";

const place = join(packageRoot(), "build-package");
const app = join(place, "app");
const installed = join(app, "node_modules", "spr2q");
const packed: { size: number; files: { path: string; size: number }[] } = JSON.parse(
  readFileSync(join(place, "packed.json"), "utf8"),
);
const paths = packed.files.map(({ path }) => path);
const prebuilds = paths.filter((path) => /^prebuilds\/.*\.node$/.test(path));
const hasCuda = paths.some((path) => path.endsWith("libspr2q_cuda.so"));

/** A PATH with Node on it and nothing else. */
const bare = join(place, "bare");
beforeAll(async () => {
  await rm(bare, { recursive: true, force: true });
  await mkdir(bare);
  await symlink(process.execPath, join(bare, "node"));
});

/** Runs Node in the application's folder; the addon can only be the prebuilt one. */
async function node(args: readonly string[], more: NodeJS.ProcessEnv = {}, cwd = app) {
  const env = { PATH: bare, PREBUILDS_ONLY: "1", HOME: place, ...more };
  return promisify(execFile)(process.execPath, args as string[], { cwd, env });
}
const program = join(app, "node_modules", ".bin", "spr2q");

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
      /^prebuilds\/[a-z0-9]+-[a-z0-9]+\/(spr2q\.(glibc|musl)\.node|libspr2q_cuda\.so)$/,
      /^assets\/(tiny\.json|model\/tiny-x2\.(safetensors|log\.jsonl)|images\/[\w-]+\.png)$/,
      /^assets\/serve\//,
    ];
    expect(paths.filter((path) => !kinds.some((kind) => kind.test(path)))).toEqual([]);
    for (const needed of ["dist/lib/index.js", "dist/lib/index.d.ts", "native/addon/addon.map"]) {
      expect(paths).toContain(needed);
    }
  });

  test("has no script that runs at install, and three dependencies", () => {
    const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
    expect(Object.keys(manifest.scripts)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/install/)]),
    );
    expect(manifest.gypfile).toBe(false);
    const wanted = ["node-addon-api", "node-gyp-build", "pngjs"];
    expect(Object.keys(manifest.dependencies).sort()).toEqual(wanted);
    expect(readdirSync(join(app, "node_modules")).filter((n) => n[0] !== ".").sort()).toEqual(
      [...wanted, "spr2q"].sort(),
    );
  });
});

describe("the binaries", () => {
  test("are there for this machine", () => {
    expect(prebuilds).toContain(`prebuilds/${process.platform}-${process.arch}/spr2q.glibc.node`);
  });

  test.each(prebuilds)("%s exports two symbols and needs glibc 2.36 at most", (path) => {
    const library = readLibrary(readFileSync(join(installed, path)));
    const { machine, exported, needed, versions } = library;
    expect(path).toContain(`-${machine}/`);
    expect([...exported].sort()).toEqual([
      "napi_register_module_v1",
      "node_api_module_get_api_version_v1",
    ]);
    const numbers = versions
      .filter((version) => version.startsWith("GLIBC_2."))
      .map((version) => Number(version.slice(8).split(".")[0]));
    console.log(`${path}: glibc 2.${Math.max(...numbers)}, needs ${needed.join(", ")}`);
    expect(Math.max(...numbers)).toBeLessThanOrEqual(36);
    expect(versions.filter((version) => /GLIBCXX|CXXABI/.test(version))).toEqual([]);
    expect(needed.filter((name) => !/^(libc|libm|ld-linux.*)\.so/.test(name))).toEqual([]);
  });
});

describe("installed without compiler, network and scripts", () => {
  test("there is no compiler on the path of these tests", () => {
    for (const tool of ["cc", "g++", "cmake", "make", "npm"]) {
      expect(spawnSync(tool, ["--version"], { env: { PATH: bare } }).error).toBeDefined();
    }
  });

  test("spr2q demo runs", async () => {
    const out = join(place, "demo");
    const { stdout } = await node([program, "demo", "--iterations", "2", "--out", out, "--json"]);
    expect(JSON.parse(stdout)).toBeTypeOf("object");
    expect(existsSync(join(out, "model.safetensors"))).toBe(true);
    expect(existsSync(join(out, "report.html"))).toBe(true);
  });

  test("import and require give the same library, and it upscales", async () => {
    const script = `
      import { createRequire } from "node:module";
      import * as esm from "spr2q";
      const cjs = createRequire(import.meta.url)("spr2q");
      using: {
        const upscaler = await esm.Upscaler.load("node_modules/spr2q/assets/model/tiny-x2.safetensors");
        const data = new Uint8Array(16 * 16 * 3).fill(90);
        const { width } = await upscaler.run({ width: 16, height: 16, channels: 3, depth: 8, data });
        console.log(JSON.stringify({ same: esm.Upscaler === cjs.Upscaler, width }));
      }`;
    const { stdout } = await node(["--input-type=module", "-e", script]);
    expect(JSON.parse(stdout)).toEqual({ same: true, width: 32 });
  });

  test("the addon that runs is the prebuilt one", async () => {
    const script = `
      import "spr2q";
      const { native } = await import("./node_modules/spr2q/dist/lib/binding.js");
      native();
      const { sharedObjects } = process.report.getReport();
      console.log(sharedObjects.find((name) => name.includes("spr2q")));`;
    const { stdout } = await node(["--input-type=module", "-e", script]);
    expect(realpathSync(dirname(stdout.trim()))).toBe(
      realpathSync(join(installed, "prebuilds", `${process.platform}-${process.arch}`)),
    );
  });

  test("where no binary fits, the error says what to do", async () => {
    const empty = join(place, "empty");
    await rm(empty, { recursive: true, force: true });
    await cp(app, empty, { recursive: true, verbatimSymlinks: true });
    await rm(join(empty, "node_modules", "spr2q", "prebuilds"), { recursive: true });
    const command = join(empty, "node_modules", ".bin", "spr2q");
    const model = join(installed, "assets", "model", "tiny-x2.safetensors");
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
