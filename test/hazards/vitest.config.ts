/** `npm run test:hazards`: minutes of work in child processes, one after the other. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/hazards/**/*.test.ts"],
    testTimeout: 600_000,
    fileParallelism: false,
    maxWorkers: 1,
  },
});
