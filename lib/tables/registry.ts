/** Every table, in the order in which missing cells are measured. */
import { CONTROLS } from "./controls.ts";
import type { QualityTable } from "./table.ts";
import { TABLE_1 } from "./table1.ts";
import { TABLE_2 } from "./table2.ts";
import { TABLE_3 } from "./table3.ts";
import { TABLE_5 } from "./table5.ts";
import { TABLE_6 } from "./table6.ts";

/** Tables of quality; Table 4 (efficiency.ts) is counted and timed, not trained. */
export const QUALITY_TABLES: readonly QualityTable[] = [
  TABLE_1,
  TABLE_6,
  TABLE_5,
  TABLE_2,
  TABLE_3,
  CONTROLS,
];

/** What `--table` takes. */
export const TABLE_NAMES = ["1", "2", "3", "4", "5", "6", "controls"] as const;
