/** Plain post-training quantisation: bounds from one calibration batch, nothing trained. */
import { dobi, minMax, percentile, type RangeSearch } from "../quant/ranges.ts";
import { RECIPES } from "../quant/recipes.ts";
import { calibratedStudent } from "../quant/student.ts";
import type { Method } from "../train/method.ts";

/** Share of the values that `percentile` clips on either side. */
const CLIPPED = 1e-3;

function rangesOnly(name: string, title: string, search: RangeSearch): Method {
  return {
    name,
    title,
    architectures: ["mambairv2", "swinir"],
    scope: "table4",
    recipe: { ...RECIPES.released, iterations: 0, osrcIterations: 0 },
    recipeName: name,
    takesLeads: true,
    prepare({ memory, teacher, policy, seed, calibration }) {
      const patches = calibration();
      const searchFor = (): RangeSearch => search;
      const student = calibratedStudent(memory, teacher, policy, patches, seed, searchFor);
      return { student, stages: [] };
    },
  };
}

export const MINMAX: Method = rangesOnly("minmax", "least and largest value", minMax);

export const PERCENTILE: Method = rangesOnly(
  "percentile",
  `the middle ${100 - 200 * CLIPPED} % of the values`,
  percentile(CLIPPED),
);

export const DOBI: Method = rangesOnly(
  "dobi",
  "DOBI: of 100 shrinking ranges the one with the least squared error",
  dobi,
);
