/** What a target may do with its bytes: succeed, or refuse them by a coded error. */
import { Spr2qError } from "../../../lib/errors.ts";

/** The result of `action`, or null where it threw a Spr2qError; anything else goes on. */
export function orRefusal<T>(action: () => T): T | null {
  try {
    return action();
  } catch (error) {
    if (error instanceof Spr2qError) return null;
    throw error;
  }
}

/** Throws unless `condition` holds: a finding that no exception of the code itself shows. */
export function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`not so: ${what}`);
}
