/** The tests of `npm run test:package`, which packs and installs first (run.mjs). */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["test/package/**/*.test.ts"], testTimeout: 300_000, fileParallelism: false },
});
