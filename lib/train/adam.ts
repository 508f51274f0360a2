/** Adam over named leaves, each with a rate of its own (a fraction of the schedule's). */
import { type Graph, releaseGradients, type Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { assign, readable } from "../device.ts";
import { expected } from "../errors.ts";
import { type Bounds, separate } from "../quant/codes.ts";
import { floats, Memory } from "../tensor.ts";

/** One trainable tensor; the step is schedule rate times `rate()`. */
export interface Trainable {
  readonly name: string;
  readonly value: Var;
  readonly rate: () => number;
  /** The quantiser of which it is a bound, and whose upper bound stays above its lower one. */
  readonly bounds?: Bounds;
}

export interface AdamSettings {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
}

export class Adam {
  readonly settings: AdamSettings;
  readonly trainables: readonly Trainable[];
  readonly #moments: Map<string, { m: F32; v: F32 }>;
  /** Steps taken so far. */
  steps = 0;

  constructor(trainables: readonly Trainable[], settings: AdamSettings, memory = new Memory()) {
    this.trainables = trainables;
    this.settings = settings;
    this.#moments = new Map(
      trainables.map(({ name, value: { size } }) => [
        name,
        { m: memory.put(floats(size)), v: memory.put(floats(size)) },
      ]),
    );
  }

  /** One step on every leaf that has a gradient, all of them in one call; frees the gradients. */
  step(g: Graph, rate: number): void {
    this.steps++;
    const { beta1, beta2, epsilon } = this.settings;
    const moving = this.trainables.filter(({ value }) => value.grad);
    const moments = moving.map(({ name }) => this.#moments.get(name)!);
    g.run(
      "adam",
      moving.map(({ value }) => value.data),
      moving.map(({ value }) => value.grad!),
      moments.map(({ m }) => m),
      moments.map(({ v }) => v),
      Float64Array.from(moving, (trainable) => rate * trainable.rate()),
      this.steps,
      beta1,
      beta2,
      epsilon,
    );
    separate(g, new Set(moving.flatMap(({ bounds }) => bounds ?? [])));
    releaseGradients(
      g.memory,
      this.trainables.map((t) => t.value),
    );
  }

  /** Moments and values under stable names, in host memory, for a checkpoint. */
  state(): Map<string, F32> {
    return new Map([...this.#tensors()].map(([name, data]) => [name, readable(data)]));
  }

  #tensors(): Map<string, F32> {
    const entries: [string, F32][] = [];
    for (const { name, value } of this.trainables) {
      const { m, v } = this.#moments.get(name)!;
      entries.push([`value.${name}`, value.data], [`m.${name}`, m], [`v.${name}`, v]);
    }
    return new Map(entries);
  }

  /** Restores what state() gave; ERR_RESUME names a tensor that is missing or of another size. */
  restore(state: ReadonlyMap<string, Float32Array>, steps: number): void {
    for (const [name, target] of this.#tensors()) {
      const found = state.get(name);
      if (found?.length !== target.length) {
        throw expected(
          "ERR_RESUME",
          `training checkpoint, tensor "${name}"`,
          `${target.length} values`,
          found ? `${found.length}` : "none",
          "Start again without --resume.",
        );
      }
      assign(target, found);
    }
    this.steps = steps;
  }
}
