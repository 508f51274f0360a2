/** Fills the missing cells of tables, one after the other. */
import type { CellSpec, Reading } from "./cell.ts";
import { sameSpec } from "./cell.ts";
import { measureCell, type Outcome } from "./measure.ts";
import { readCells } from "./store.ts";
import type { QualityTable } from "./table.ts";
import type { Workshop } from "./workshop.ts";

/** A cell to be measured, with every way in which some row wants it run. */
interface Wanted {
  readonly spec: CellSpec;
  readonly seed: number;
  readonly readings: Reading[];
  /** Label of the first row that wants it. */
  readonly label: string;
}

/** One cell's outcome, told as soon as it is known. */
export interface CellReport {
  readonly label: string;
  readonly spec: CellSpec;
  readonly seed: number;
  readonly outcome: Outcome;
}

/** Each cell once, whichever tables share it, in the order of the tables and their rows. */
function wantedCells(
  tables: readonly QualityTable[],
  seeds: number | undefined,
  only: (label: string, spec: CellSpec) => boolean,
): Wanted[] {
  const list: Wanted[] = [];
  for (const table of tables) {
    for (const { label, cell: spec, reading = "packed" } of table.rows) {
      if (!only(label, spec)) continue;
      // Bicubic has no noise: one seed is all there is.
      const count = spec.method === "bicubic" ? 1 : (seeds ?? table.seeds);
      for (let seed = 0; seed < count; seed++) {
        const same = list.find((one) => one.seed === seed && sameSpec(one.spec, spec));
        if (!same) list.push({ spec, seed, readings: [reading], label });
        else if (!same.readings.includes(reading)) same.readings.push(reading);
      }
    }
  }
  return list;
}

/** Measures what `tables` lack. An abort ends it between two cells or within one, losing nothing. */
export async function* fillTables(
  tables: readonly QualityTable[],
  shop: Workshop,
  choice: { readonly seeds?: number; only(label: string, spec: CellSpec): boolean },
): AsyncGenerator<CellReport> {
  const known = await readCells(shop.results);
  for (const { spec, seed, readings, label } of wantedCells(tables, choice.seeds, choice.only)) {
    shop.signal.throwIfAborted();
    const outcome = await measureCell(spec, seed, readings, shop, known);
    yield { label, spec, seed, outcome };
  }
}
