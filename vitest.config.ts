import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // npm run test:hazards and test:package: minutes in child processes.
    exclude: ["test/hazards/**", "test/package/**"],
    testTimeout: 120_000,
    fileParallelism: true,
    maxWorkers: 2,
  },
});
