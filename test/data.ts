/**
 * Finds the test data folder (official weights, goldens, benchmark images), which is never part of
 * the project. Set SPR2Q_TEST_DATA to its path; without it the tests that need it are skipped.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

const root = process.env.SPR2Q_TEST_DATA ?? "";

/** True where the folder of SPR2Q_TEST_DATA exists. */
export const hasTestData: boolean = root !== "" && existsSync(join(root, "golden"));

/** Path of a file of the test data, for example `testData("golden/ops/qdq_4bit.safetensors")`. */
export function testData(path: string): string {
  return join(root, path);
}
