/**
 * `npm run test:hazards`: minutes of work in child processes, one after the other. With SPR2Q_PACKAGE,
 * what tests import of lib/ is that package's, too.
 */
import { defineConfig } from "vitest/config";
import { installedLib } from "../package/installed_lib.ts";

const home = process.env.SPR2Q_PACKAGE;

export default defineConfig({
  plugins: home ? [installedLib(home)] : [],
  test: {
    include: ["test/hazards/**/*.test.ts"],
    setupFiles: ["test/package/installed_setup.ts"],
    testTimeout: 600_000,
    fileParallelism: false,
    maxWorkers: 1,
  },
});
