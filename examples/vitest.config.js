import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["examples/*/test/**/*.test.js"], testTimeout: 60_000, maxWorkers: 1 },
});
