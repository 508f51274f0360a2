import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["examples/*/test/**/*.test.js"], testTimeout: 120_000, maxWorkers: 1 },
});
