/**
 * Reconstruction block by block: one layer of the student after another is fitted to its teacher's
 * output, on inputs that come from the layers already done. What is trained in a block, and by which
 * loss, is the method's; caches, batches, order, and resuming are here.
 */
import { Graph, Var } from "../autograd.ts";
import type { F32 } from "../binding.ts";
import { expected } from "../errors.ts";
import type { LayerPlace } from "../models/architecture.ts";
import type { Network, Trace } from "../models/network.ts";
import { FloatSites } from "../models/sites.ts";
import { Router } from "../nn/routing.ts";
import type { Student } from "../quant/student.ts";
import { generator } from "../random.ts";
import { floatsFrom, type Memory } from "../tensor.ts";
import { Adam, type Trainable } from "./adam.ts";
import type { MethodStage, StepResult } from "./method.ts";

/** What a method does in one block. */
export interface BlockWork {
  readonly trainables: readonly Trainable[];
  /**
   * Loss of outputs z against the teacher's (rows, channels) at step `at` of the block; writes its
   * gradient.
   */
  loss(at: number, z: F32, wanted: F32, gradient: F32): number;
  /** Before step `at`, outside of its graph: snapshots and the like. */
  before?(at: number): void;
  /** After the last step: what was soft becomes hard. */
  finish?(): void;
  /** What loss() remembers from step to step, for checkpoints. */
  state?(): ReadonlyMap<string, F32>;
  restore?(state: ReadonlyMap<string, Float32Array>): void;
}

export interface BlockSettings {
  readonly memory: Memory;
  readonly teacher: Network;
  readonly student: Student;
  /** LR patches (count, h, w, 3) that all blocks are fitted on. */
  readonly patches: Var;
  readonly batch: number;
  /** Steps of all blocks together; each gets an equal whole number. */
  readonly iterations: number;
  /** Share of a block's input elements that are the teacher's instead of the student's (QDrop). */
  readonly drop: number;
  readonly seed: number;
  /** Before the first block, unless resumed. */
  readonly start?: () => void;
  /** Rate factor of step `at` of `count` in a block. */
  readonly rate: (at: number, count: number) => number;
  readonly begin: (layer: number, cache: BlockCache) => BlockWork;
}

/** Inputs and outputs of one block for every patch. */
export interface BlockCache {
  readonly at: LayerPlace;
  readonly routes: Router;
  readonly raw: F32;
  readonly quantised: F32;
  readonly wanted: F32;
}

interface OpenBlock {
  readonly layer: number;
  readonly cache: BlockCache;
  readonly work: BlockWork;
  readonly adam: Adam;
}

export class BlockStage implements MethodStage {
  readonly name = "blocks";
  readonly iterations: number;
  readonly #settings: BlockSettings;
  readonly #steps: number;
  #open: OpenBlock | null = null;

  constructor(settings: BlockSettings) {
    const layers = settings.student.net.layerCount;
    this.#settings = settings;
    this.#steps = Math.ceil(settings.iterations / layers);
    this.iterations = this.#steps * layers;
  }

  begin(): void {
    this.#settings.start?.();
  }

  step(at: number): StepResult {
    const [layer, inner] = [Math.floor(at / this.#steps), at % this.#steps];
    if (this.#open?.layer !== layer) this.#open = this.#enter(layer);
    const { cache, work, adam } = this.#open;
    const { memory, student, rate: rateOf } = this.#settings;
    work.before?.(inner);
    const resting = this.#resting(work);
    for (const value of resting) value.requiresGrad = false;
    const graph = new Graph("recording", memory);
    const { x, wanted, at: place, router } = this.#batch(graph, cache, at);
    student.sites.samples = place.batch;
    student.sites.begin(place, place.window);
    const { architecture } = student.net;
    const z = architecture.layer(graph, student.net, place, x, student.sites, router);
    const gradient = graph.floats(z.size);
    const loss = work.loss(inner, z.data, wanted, gradient);
    const rate = rateOf(inner, this.#steps);
    if (Number.isFinite(loss)) {
      graph.seed(z, gradient);
      graph.backward();
      adam.step(new Graph("running", memory), rate);
    }
    graph.dispose();
    for (const value of resting) value.requiresGrad = true;
    if (inner === this.#steps - 1) {
      work.finish?.();
      this.#open = null;
    }
    return { loss, pixel: loss, feature: 0, rate };
  }

  /** Bounds that this block leaves alone: they get no gradient. */
  #resting({ trainables }: BlockWork): Var[] {
    const moved = new Set(trainables.map(({ value }) => value));
    const { bounds } = this.#settings.student.sites;
    const ends = [...bounds.values()].flatMap(({ lower, upper }) => [lower, upper]);
    return ends.filter((value) => !moved.has(value));
  }

  /** Everything of the student that blocks change, and the optimiser of the block that is open. */
  state(): Map<string, F32> {
    const { net, sites } = this.#settings.student;
    const tensors = new Map<string, F32>();
    for (const [name, { data }] of net.weights) tensors.set(`weight.${name}`, data);
    for (const [site, { lower, upper }] of sites.bounds) {
      tensors.set(`lower.${site}`, lower.data);
      tensors.set(`upper.${site}`, upper.data);
    }
    if (this.#open) {
      for (const [key, data] of this.#open.adam.state()) tensors.set(`adam.${key}`, data);
      for (const [key, data] of this.#open.work.state?.() ?? []) tensors.set(`work.${key}`, data);
    }
    return tensors;
  }

  restore(state: ReadonlyMap<string, Float32Array>, done: number): void {
    this.#open = null;
    for (const [name, target] of this.state()) {
      const found = state.get(name);
      if (found?.length !== target.length) {
        const got = found ? `${found.length}` : "none";
        throw expected("ERR_RESUME", `checkpoint, "${name}"`, `${target.length} values`, got);
      }
      target.set(found);
    }
    const inner = done % this.#steps;
    if (inner === 0) return;
    const part = (prefix: string): Map<string, Float32Array> =>
      new Map(
        [...state]
          .filter(([key]) => key.startsWith(prefix))
          .map(([key, data]) => [key.slice(prefix.length), data]),
      );
    // A block that is begun again has its caches from the layers before it, which are done.
    this.#open = this.#enter(Math.floor(done / this.#steps));
    this.#open.work.restore?.(part("work."));
    this.#open.adam.restore(part("adam."), inner);
  }

  #enter(layer: number): OpenBlock {
    const { memory, teacher, student, patches, seed } = this.#settings;
    const graph = new Graph("running", memory);
    const routes = new Router({ mode: "sampled", seed });
    const trace = (): Trace & { entering: { at: LayerPlace; x: Var }[] } => ({
      layers: [],
      groups: [],
      entering: [],
    });
    const [float, coded] = [trace(), trace()];
    teacher.forward(graph, patches, new FloatSites(), routes, float);
    student.sites.samples = patches.shape[0];
    const replay = new Router({ replay: routes.classes });
    student.net.forward(graph, patches, student.sites, replay, coded);
    const cache: BlockCache = {
      at: coded.entering[layer].at,
      routes,
      raw: floatsFrom(float.entering[layer].x.data),
      quantised: floatsFrom(coded.entering[layer].x.data),
      wanted: floatsFrom(float.layers[layer].data),
    };
    graph.dispose();
    const work = this.#settings.begin(layer, cache);
    const adam = new Adam(work.trainables, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 });
    return { layer, cache, work, adam };
  }

  /** A batch of patches, inputs mixed element by element where `drop` says so. */
  #batch(
    graph: Graph,
    { at, routes, raw, quantised, wanted }: BlockCache,
    step: number,
  ): { x: Var; wanted: F32; at: LayerPlace; router: Router } {
    const { batch, drop, seed, student } = this.#settings;
    const draw = generator(seed, step, 0xb10c);
    const channels = student.net.config.channels;
    const tokens = at.height * at.width;
    const size = tokens * channels;
    const [x, y] = [graph.floats(batch * size), graph.floats(batch * size)];
    const known = routes.classes[at.index];
    const classes = known ? new Int32Array(batch * tokens) : undefined;
    for (let b = 0; b < batch; b++) {
      const from = Math.floor(draw() * at.batch);
      const [low, high] = [from * size, (from + 1) * size];
      x.set(quantised.subarray(low, high), b * size);
      y.set(wanted.subarray(low, high), b * size);
      if (classes) classes.set(known!.subarray(from * tokens, (from + 1) * tokens), b * tokens);
      if (drop > 0)
        for (let i = 0; i < size; i++) if (draw() < drop) x[b * size + i] = raw[low + i];
    }
    const replay: (Int32Array<ArrayBuffer> | undefined)[] = [];
    replay[at.index] = classes;
    const router = new Router({ replay });
    const place = { ...at, batch };
    return { x: new Var(x, [batch * tokens, channels]), wanted: y, at: place, router };
  }
}
