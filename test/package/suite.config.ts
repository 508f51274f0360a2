/**
 * `npm run test:installed`: what people use, once more on the package that run.mjs has installed and its
 * prebuilt addon: library, formats, commands, training, server and page. Ops, models and methods are the
 * same code as at home, and are tested there.
 */
import { defineConfig } from "vitest/config";
import { installedLib, preparedPackage } from "./installed_lib.ts";

export default defineConfig({
  plugins: [installedLib(preparedPackage)],
  test: {
    include: ["test/{cli,infer,io,serve,train}/**/*.test.ts", "test/{events,threads}.test.ts"],
    setupFiles: ["test/package/installed_setup.ts"],
    env: { PREBUILDS_ONLY: "1", SPR2Q_PACKAGE: preparedPackage },
    testTimeout: 120_000,
    maxWorkers: 2,
  },
});
