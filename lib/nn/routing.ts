/**
 * Token routing of MambaIRv2: which prompt each token gets and how tokens are sorted for the scan.
 * `sampled` draws classes by Gumbel noise keyed by (seed, tile, layer, token, class), `argmax` takes
 * the largest logit, `replay` uses given classes (tests, and the student of a distillation, which
 * must share its teacher's routes).
 */
import { type Graph, Var } from "../autograd.ts";
import type { I32 } from "../binding.ts";
import type { Memory } from "../tensor.ts";

/** How MambaIRv2 gives a token its class: drawn by the classes' odds, or the likeliest. */
export type RoutingMode = "sampled" | "argmax";

/** How a forward pass routes; one object serves one pass. */
export class Router {
  readonly mode: RoutingMode;
  readonly seed: number;
  /** Identifies the tile (its origin) in the noise key; samples of a batch count up from it. */
  readonly tile: number;
  /** "straight-through" sends a gradient to the logits, "none" (the default) does not. */
  readonly gradient: "none" | "straight-through";
  /** Classes by layer, raster order, samples one after the other; filled or replayed. */
  readonly classes: (I32 | undefined)[];
  readonly replays: boolean;
  readonly #owned: { readonly memory: Memory; readonly buffer: ArrayBuffer }[] = [];

  constructor(options: {
    readonly mode?: RoutingMode;
    readonly seed?: number;
    readonly tile?: number;
    readonly gradient?: "none" | "straight-through";
    readonly replay?: readonly (I32 | undefined)[];
  }) {
    this.mode = options.mode ?? "sampled";
    this.seed = options.seed ?? 0;
    this.tile = options.tile ?? 0;
    this.gradient = options.gradient ?? "none";
    this.replays = options.replay !== undefined;
    this.classes = options.replay ? [...options.replay] : [];
  }

  /**
   * Classes of one layer's tokens. `logits` is called only where they are needed: not in a replay
   * without gradient.
   */
  route(g: Graph, layer: number, batch: number, rows: number, logits: () => Var): Routed {
    const known = this.classes[layer];
    const differentiable = this.gradient === "straight-through" && g.mode === "recording";
    if (known && !differentiable) return { classes: known, logits: null };
    const values = logits();
    const count = values.shape[1];
    const classes = known ?? this.#fresh(g, rows);
    const key = [this.mode === "sampled" ? 1 : 0, this.seed, this.tile, layer];
    if (!known) g.run("route", values.data, classes, batch, rows / batch, count, ...key, 0);
    if (g.mode !== "tracing") this.classes[layer] = classes;
    return { classes, logits: differentiable ? { values, key, batch } : null };
  }

  /** Gives back what the classes hold on the GPU, once no pass will read them any more. */
  release(): void {
    for (const { memory, buffer } of this.#owned) memory.give(buffer);
    this.#owned.length = 0;
  }

  /** Room for one layer's classes: they outlive the pass that chooses them. */
  #fresh(g: Graph, rows: number): I32 {
    if (g.mode === "tracing") return g.ints(rows);
    if (!g.memory.onDevice) return new Int32Array(rows);
    const buffer = g.memory.take(rows * 4);
    this.#owned.push({ memory: g.memory, buffer });
    return g.memory.ints(buffer, rows);
  }
}

/** Classes and, where a gradient is wanted, what their noise was made from. */
export interface Routed {
  readonly classes: I32;
  readonly logits: {
    readonly values: Var;
    readonly key: readonly number[];
    readonly batch: number;
  } | null;
}

/** Stable order of each sample's tokens by class, as row indices of the whole batch. */
export function sortTokens(g: Graph, classes: I32, batch: number, count: number): I32 {
  const order = g.ints(classes.length);
  g.run("sortTokens", classes, order, null, batch, classes.length / batch, count);
  return order;
}

/** c (rows, states) + pool[classes], pool (count, states), with the gradients of all three. */
export function addPrompt(g: Graph, c: Var, pool: Var, routed: Routed): Var {
  const [count, states] = pool.shape;
  const rows = c.size / states;
  const { classes, logits } = routed;
  const y = new Var(g.floats(c.size), c.shape);
  g.run("addPrompt", c.data, pool.data, classes, y.data, rows, count, states);
  return g.record(y, [c, pool, logits?.values ?? null], (gy) => {
    const gpool = pool.requiresGrad ? g.floats(pool.size) : null;
    if (gpool) g.run("addPromptGrad", gy, classes, gpool, rows, count, states);
    if (!logits) return [gy, gpool, null];
    const glogits = g.floats(rows * count);
    const { values, key, batch } = logits;
    g.run(
      "routeGrad",
      values.data,
      pool.data,
      gy,
      glogits,
      batch,
      rows / batch,
      count,
      states,
      ...key,
    );
    return [gy, gpool, glogits];
  });
}
