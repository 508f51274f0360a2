#!/usr/bin/env node
// Makes prebuilds/PLATFORM-ARCH/: the addon under the name that node-gyp-build looks for, and the CUDA
// library beside it where `npm run build:cuda` has made one.
//   node prebuilds/make.cjs [--target linux-arm64|win32-x64]      (from x64 Linux: cross-built)
// prebuildify packs, but knows node-gyp alone. It calls its --node-gyp as `PROGRAM rebuild --arch=... ...`
// and takes build/Release/*.node; this file answers to that too, and builds with CMake. All of it goes
// on with a copy in build-prebuild-TARGET, so that the addon of the working tree stays where it is.
const { execFileSync } = require("node:child_process");
const { copyFileSync, existsSync, mkdirSync, rmSync } = require("node:fs");
const { dirname, join } = require("node:path");

const root = dirname(__dirname);
const CUDA = "libspr2q_cuda.so";
const here = `${process.platform}-${process.arch}`;
const folderOf = (target) => join(root, `build-prebuild-${target}`);
const run = (program, args) => execFileSync(program, args, { cwd: root, stdio: "inherit" });

/** What a cross build tells CMake, the programs it needs, and how its result is stripped. */
const CROSS = {
  "linux-arm64": {
    folder: "build-arm64", // test/arm64's, too
    strip: "aarch64-linux-gnu-strip",
    defines: () => ({
      CMAKE_SYSTEM_NAME: "Linux",
      CMAKE_SYSTEM_PROCESSOR: "aarch64",
      CMAKE_CXX_COMPILER: "aarch64-linux-gnu-g++",
    }),
  },
  // clang on the headers and libraries of Debian's g++-mingw-w64-x86-64-posix, linked by lld. Not gcc:
  // on Windows it spills AVX registers to where the stack is not aligned for them.
  "win32-x64": {
    folder: "build-win32-x64",
    strip: "x86_64-w64-mingw32-strip",
    defines: () => {
      const triple = "x86_64-w64-mingw32";
      const words = ["-print-file-name=libstdc++.a"];
      const library = execFileSync(`${triple}-g++-posix`, words, { encoding: "utf8" }).trim();
      const folder = dirname(library);
      const headers = join(folder, "include", "c++");
      return {
        CMAKE_SYSTEM_NAME: "Windows",
        CMAKE_SYSTEM_PROCESSOR: "AMD64",
        CMAKE_CXX_COMPILER: "clang++",
        CMAKE_CXX_COMPILER_TARGET: triple,
        CMAKE_CXX_FLAGS: `-isystem ${headers} -isystem ${join(headers, triple)}`,
        CMAKE_EXE_LINKER_FLAGS: `-fuse-ld=lld -L${folder} -static`,
        CMAKE_SHARED_LINKER_FLAGS: `-fuse-ld=lld -L${folder} -static`,
        SPR2Q_DLLTOOL: `${triple}-dlltool`,
      };
    },
  },
};

/** As node-gyp: leaves the addon in build/Release of the working directory. */
function rebuild(target) {
  const cross = CROSS[target];
  const build = join(root, cross ? cross.folder : "build");
  if (!cross) {
    run(process.execPath, [require.resolve("cmake-js/bin/cmake-js"), "compile", "--parallel", "2"]);
  } else {
    const defines = {
      ...cross.defines(),
      CMAKE_BUILD_TYPE: "Release",
      CMAKE_JS_INC: require("node-api-headers").include_dir,
    };
    const given = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`);
    run("cmake", ["-S", root, "-B", build, ...given]);
    run("cmake", ["--build", build, "--parallel", "2"]);
  }
  const release = join(folderOf(target), "build", "Release");
  mkdirSync(release, { recursive: true });
  const made = cross ? build : join(build, "Release");
  copyFileSync(join(made, "spr2q.node"), join(release, "spr2q.node"));
  if (existsSync(join(made, CUDA))) copyFileSync(join(made, CUDA), join(release, CUDA));
}

function pack(target) {
  if (target !== here && (!CROSS[target] || here !== "linux-x64")) {
    const known = Object.keys(CROSS).join(" and ");
    throw new Error(`cannot build for ${target} here: ${known} are cross-built, on linux-x64`);
  }
  const [platform, arch] = target.split("-");
  const staging = folderOf(target);
  const place = join(root, "prebuilds", target);
  rmSync(place, { recursive: true, force: true });
  rmSync(join(staging, "build"), { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  const options = {
    platform,
    arch,
    cwd: staging,
    out: root,
    name: "spr2q",
    targets: [process.versions.node],
    napi: true,
    strip: true,
    stripBin: target === here ? "strip" : CROSS[target].strip,
    tagLibc: platform === "linux",
    nodeGyp: process.platform === "win32" ? `node "${__filename}"` : __filename,
  };
  require("prebuildify")(options, (error) => {
    if (!error) return console.log(place);
    console.error(`prebuilds: ${error.message}`);
    process.exit(1);
  });
}

const words = process.argv.slice(2).flatMap((word) => word.split("="));
const { PREBUILD_PLATFORM, PREBUILD_ARCH } = process.env; // of prebuildify
if (words[0] === "rebuild") rebuild(`${PREBUILD_PLATFORM}-${PREBUILD_ARCH}`);
else pack(words.includes("--target") ? words[words.indexOf("--target") + 1] : here);
