/**
 * Freezes a network for one input size: the model's own forward pass runs on a tracing graph, the
 * collected op calls get arena addresses by liveness, and the list goes to the native plan, which
 * replays it without JavaScript. Tape and plan run the same ops in the same order.
 */
import { Graph, Var } from "../autograd.ts";
import { type DevicePlanHandle, type F32, type I32, native, type PlanHandle } from "../binding.ts";
import { addressOf, deviceError, onDevice } from "../device.ts";
import { expected, Spr2qError, stopped } from "../errors.ts";
import type { Network } from "../models/network.ts";
import type { Sites } from "../models/sites.ts";
import { Router, type RoutingMode } from "../nn/routing.ts";
import { encode } from "./encode.ts";
import { deviceTarget } from "./target.ts";

/** What one run of a plan may be told. */
export interface RunSettings {
  /** Receives the seconds of each of the plan's steps. */
  readonly seconds?: Float64Array;
  /** Number of the tile in the noise of sampled routing; default 0. */
  readonly noiseTile?: number;
  /** Where the result goes, instead of into a new array. */
  readonly output?: F32;
  /** Called with the share of the steps done, below 1, at most every 50 ms; it must not throw. */
  readonly onProgress?: (share: number) => void;
}

/** Share of the result of whole windows that a plan counts on: of smaller results it uses nothing. */
const SPARE_SHARE = 15 / 16;
/** Bytes beyond that share, for values that begin on cache lines. */
const SPARE_ROUNDING = 1024;

/**
 * Bytes of a plan's output that may hold other values until the result is written: in proportion to
 * the image in whole windows, so that the arena is too.
 */
export function spareOutput({ config }: Network, width: number, height: number): number {
  const { window, scale } = config;
  const whole = (n: number): number => Math.ceil(n / window) * window;
  const bytes = (pixels: number): number => pixels * 3 * 4 * scale ** 2;
  const share = Math.floor(SPARE_SHARE * bytes(whole(width) * whole(height))) + SPARE_ROUNDING;
  return share <= bytes(width * height) ? share : 0;
}

/** One frozen network for images of height x width, batch 1. */
export class Plan {
  readonly width: number;
  readonly height: number;
  readonly scale: number;
  readonly arenaBytes: number;
  /** What each timed step runs: one op, or a segment's ops joined by "+". */
  readonly steps: readonly string[];
  readonly #device: "cpu" | "cuda";
  readonly #handle: PlanHandle | DevicePlanHandle;
  #released = false;

  /**
   * Traces `net` with `sites` for one image size and routing; see {@link Router} for the noise.
   * Nothing of the size of the image is allocated before run().
   * Without `fused`, every call runs over the whole image before the next: same bits, slower.
   */
  constructor(
    net: Network,
    sites: Sites,
    width: number,
    height: number,
    routing: { readonly mode: RoutingMode; readonly seed: number },
    fused = true,
    device: "cpu" | "cuda" = "cpu",
  ) {
    this.width = width;
    this.height = height;
    this.scale = net.config.scale;
    const graph = new Graph("tracing");
    const input = new Var(new Float32Array(width * height * 3), [1, height, width, 3]);
    const router = new Router(routing);
    const output = net.forward(graph, input, sites, router);
    const target = device === "cuda" ? deviceTarget() : undefined;
    const spare = device === "cuda" ? 0 : spareOutput(net, width, height);
    const encoded = encode(graph.calls, input.data, output.data, fused, spare, target);
    this.arenaBytes = encoded.arenaBytes;
    this.steps = encoded.steps;
    this.#device = device;
    const list = [
      Float64Array.from(encoded.code),
      encoded.constants,
      encoded.arenaBytes,
      input.size,
      output.size,
    ] as const;
    this.#handle =
      device === "cpu"
        ? native().createPlan(...list)
        : onDevice(() => native().createDevicePlan(...list));
  }

  /**
   * Queues a run between tensors on the GPU, behind the ops before it: input (height, width, 3) and
   * output (scale * height, scale * width, 3), floats of a DeviceMemory of this thread.
   */
  runOn(input: F32, output: F32, noiseTile = 0): void {
    if (this.#device === "cpu") {
      throw expected("ERR_ARGUMENT", "runOn()", "a plan on the GPU", "one on the CPU");
    }
    const [from, to] = [input, output].map(addressOf);
    onDevice(() => native().runDevicePlanOn(this.#handle, from, to, noiseTile));
  }

  /**
   * Upscales (height, width, 3) floats in 0..1 on a thread of the addon's own. Rejects with
   * ERR_ABORTED as soon as `signal` fires (the thread ends its step meanwhile, and `settings.output`
   * may be written until then), ERR_OUT_OF_MEMORY, ERR_DISPOSED. Runs may overlap; each has an arena
   * of its own.
   */
  async run(image: F32, signal?: AbortSignal, settings: RunSettings = {}): Promise<F32> {
    if (signal?.aborted) throw stopped("Upscaling", signal);
    if (this.#released) throw new Spr2qError("ERR_DISPOSED", "The plan was released.");
    const { seconds = null, noiseTile = 0, onProgress } = settings;
    const output =
      settings.output ?? new Float32Array(this.width * this.height * 3 * this.scale ** 2);
    const cancel: I32 = new Int32Array(1);
    const all = this.steps.length + 1; // the last one is done when the promise says so
    const told = onProgress ? (done: number) => onProgress(done / all) : null;
    if (seconds && this.#device === "cuda") {
      throw expected("ERR_ARGUMENT", "seconds", "none on the GPU", "a list", "Time whole runs.");
    }
    const work =
      this.#device === "cpu"
        ? native().runPlan(this.#handle, image, output, cancel, seconds, noiseTile, told)
        : native()
            .runDevicePlan(this.#handle, image, output, cancel, noiseTile)
            .catch((cause) => {
              throw deviceError(cause);
            });
    const finished = await untilAborted(work, signal, () => {
      cancel[0] = 1;
    });
    if (!finished) throw stopped("Upscaling", signal);
    return output;
  }

  /** Frees the native half; at the end of the runs under way where there are some. */
  release(): void {
    this.#released = true;
    if (this.#device === "cpu") native().releasePlan(this.#handle);
    else native().releaseDevicePlan(this.#handle);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** `work`, or ERR_ABORTED as soon as `signal` fires; `stop` is called then. */
function untilAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  stop: () => void,
): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      stop();
      reject(stopped("Upscaling", signal));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
