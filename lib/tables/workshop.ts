/** What measuring a cell needs around it: where things lie, how much effort, whom to tell. */
import type { Budget } from "./budget.ts";
import type { WeightSource } from "./weights.ts";

/** What is going on: for the status line. */
export interface Step {
  readonly label: string;
  readonly done: number;
  readonly total: number;
  readonly unit?: string;
  readonly note?: string;
}

/** Where things lie, and how much training a cell gets. */
export interface Workshop {
  readonly weights: WeightSource;
  /** Folder of the test sets. */
  readonly images: string;
  /** Folder of training images. */
  readonly train: string;
  /** Folder of the cell files. */
  readonly results: string;
  /** Folder of packed models and checkpoints, one below it for each cell. */
  readonly models: string;
  readonly budget: Budget;
  readonly version: string;
  readonly signal: AbortSignal;
  onStep(step: Step): void;
}
