/** Weights that are made when somebody first reads them. */
import { Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";

const NOTHING: F32 = new Float32Array(0);

/**
 * A tensor whose values `make` returns; it is called once. `filled`, where given, then writes the
 * values, and may read the tensor itself and its parts while it does.
 */
export function lazyVar(shape: readonly number[], make: () => F32, filled?: () => void): Var {
  const variable = new Var(NOTHING, shape);
  let data: F32 | null = null;
  Object.defineProperty(variable, "data", {
    get: (): F32 => {
      if (data) return data;
      data = make();
      filled?.();
      return data;
    },
  });
  return variable;
}
