/** max(0, x), and clipped above: for the few passes that need it in float. */
import { type Graph, Var } from "../autograd.ts";

/** min(max(x, 0), most); the gradient passes strictly inside. */
export function relu(g: Graph, x: Var, most: number = Number.POSITIVE_INFINITY): Var {
  const y = new Var(g.floats(x.size), x.shape);
  for (let i = 0; i < x.size; i++) y.data[i] = Math.min(Math.max(x.data[i], 0), most);
  return g.record(y, [x], (gy) => {
    const gx = g.floats(x.size);
    for (let i = 0; i < x.size; i++) gx[i] = x.data[i] > 0 && x.data[i] < most ? gy[i] : 0;
    return [gx];
  });
}
