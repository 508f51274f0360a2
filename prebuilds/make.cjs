#!/usr/bin/env node
// Makes prebuilds/PLATFORM-ARCH/: the addon under the name that node-gyp-build looks for, and the CUDA
// library beside it where `npm run build:cuda` has made one.
//   node prebuilds/make.cjs [--arch arm64]      (arm64 on x64 Linux: cross-built)
// prebuildify packs, but knows node-gyp alone. It calls its --node-gyp as `PROGRAM rebuild --arch=... ...`
// and takes build/Release/*.node; this file answers to that too, and builds with CMake. All of it goes
// on with a copy in build-prebuild-ARCH, so that the addon of the working tree stays where it is.
const { execFileSync } = require("node:child_process");
const { copyFileSync, existsSync, mkdirSync, rmSync } = require("node:fs");
const { dirname, join } = require("node:path");

const root = dirname(__dirname);
const CUDA = "libspr2q_cuda.so";
const folderOf = (arch) => join(root, `build-prebuild-${arch}`);
const run = (program, args) => execFileSync(program, args, { cwd: root, stdio: "inherit" });

/** As node-gyp: leaves the addon in build/Release of the working directory. */
function rebuild(arch) {
  const own = arch === process.arch;
  const build = join(root, own ? "build" : `build-${arch}`); // the latter is test/arm64's, too
  if (own) {
    run(process.execPath, [require.resolve("cmake-js/bin/cmake-js"), "compile", "--parallel", "2"]);
  } else {
    const defines = {
      CMAKE_SYSTEM_NAME: "Linux",
      CMAKE_SYSTEM_PROCESSOR: "aarch64",
      CMAKE_CXX_COMPILER: "aarch64-linux-gnu-g++",
      CMAKE_BUILD_TYPE: "Release",
      CMAKE_JS_INC: require("node-api-headers").include_dir,
    };
    const given = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`);
    run("cmake", ["-S", root, "-B", build, ...given]);
    run("cmake", ["--build", build, "--parallel", "2"]);
  }
  const release = join(folderOf(arch), "build", "Release");
  mkdirSync(release, { recursive: true });
  const made = own ? join(build, "Release") : build;
  copyFileSync(join(made, "spr2q.node"), join(release, "spr2q.node"));
  if (existsSync(join(made, CUDA))) copyFileSync(join(made, CUDA), join(release, CUDA));
}

function pack(arch) {
  const cross = arch !== process.arch;
  if (cross && (arch !== "arm64" || process.platform !== "linux")) {
    throw new Error(`cannot build for ${arch} here: only linux-arm64 is cross-built, on Linux`);
  }
  const staging = folderOf(arch);
  const target = join(root, "prebuilds", `${process.platform}-${arch}`);
  rmSync(target, { recursive: true, force: true });
  rmSync(join(staging, "build"), { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  const options = {
    arch,
    cwd: staging,
    out: root,
    name: "spr2q",
    targets: [process.versions.node],
    napi: true,
    strip: true,
    stripBin: cross ? "aarch64-linux-gnu-strip" : "strip",
    tagLibc: process.platform === "linux",
    nodeGyp: process.platform === "win32" ? `node "${__filename}"` : __filename,
  };
  require("prebuildify")(options, (error) => {
    if (!error) return console.log(target);
    console.error(`prebuilds: ${error.message}`);
    process.exit(1);
  });
}

const words = process.argv.slice(2).flatMap((word) => word.split("="));
const arch = words.includes("--arch") ? words[words.indexOf("--arch") + 1] : process.arch;
if (words[0] === "rebuild") rebuild(arch);
else pack(arch);
