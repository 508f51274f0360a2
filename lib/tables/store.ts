/** The folder of cell files: one JSON file a cell, written whole or not at all. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expected, Spr2qError } from "../errors.ts";
import { ensureWritableDir, writeFileAtomic } from "../io/files.ts";
import { CELL_FORMAT, type Cell } from "./cell.ts";

/** A cell with the name of its file, without ".json". */
export interface StoredCell {
  readonly id: string;
  readonly cell: Cell;
}

/** Every cell below `dir`; an absent folder has none. @throws ERR_DATA for a file that is no cell. */
export async function readCells(dir: string): Promise<StoredCell[]> {
  let names: string[];
  try {
    names = await readdir(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    const message = `cannot read ${dir}: ${(error as Error).message}`;
    throw new Spr2qError("ERR_IO", message, { cause: error });
  }
  const found: StoredCell[] = [];
  for (const name of names.filter((one) => one.endsWith(".json")).sort()) {
    const path = join(dir, name);
    found.push({ id: name.slice(0, -5), cell: parseCell(await readFile(path, "utf8"), path) });
  }
  return found;
}

function parseCell(text: string, path: string): Cell {
  let cell: Partial<Cell>;
  try {
    cell = JSON.parse(text) as Partial<Cell>;
  } catch (cause) {
    throw new Spr2qError("ERR_DATA", `${path}: not JSON; delete it to measure it again.`, {
      cause,
    });
  }
  if (cell?.format !== CELL_FORMAT || !cell.network || !cell.readings || !cell.budget) {
    const got = `format ${String(cell?.format)}`;
    const fix = "Delete it to measure it again.";
    throw expected("ERR_DATA", path, `a cell of format ${CELL_FORMAT}`, got, fix);
  }
  return cell as Cell;
}

/** Writes DIR/ID.json. */
export async function writeCell(dir: string, { id, cell }: StoredCell): Promise<void> {
  await ensureWritableDir(dir);
  await writeFileAtomic(join(dir, `${id}.json`), Buffer.from(`${JSON.stringify(cell, null, 1)}\n`));
}
