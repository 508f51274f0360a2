/**
 * Enlarges images of any kind that PNG knows with one model: as a whole (run), strip by strip into a
 * file (save) or to whoever asks (stream). Those smaller than half a window are mirrored up to it and
 * cropped again. Kinds of images: strips.ts; memory: budget.ts; the order of runs: queue.ts.
 */
import { native, setThreads } from "../binding.ts";
import { chosenDevice } from "../device.ts";
import { stopped } from "../errors.ts";
import { fillFileAtomic } from "../io/files.ts";
import { outlineImage, readImage } from "../io/pictures.ts";
import type { ImageShape } from "../io/png.ts";
import { pngChunks, writePng } from "../io/png_writer.ts";
import type { RasterImage } from "../io/raster.ts";
import { Budget, enlarged, savingBytes } from "./budget.ts";
import { type Call, Calls, type RunMessage } from "./calls.ts";
import { type Model, openModel } from "./model.ts";
import { ShareReporter } from "./progress.ts";
import { type ImageRows, isRows, samples } from "./rows.ts";
import {
  type Band,
  checkLimit,
  checkOut,
  checkSides,
  checkUpscalable,
  disposed,
  type LoadOptions,
  type RunImageOptions,
  type Saved,
  settled,
  type Stats,
  type UpscaleOptions,
  type UpscalerOptions,
} from "./settings.ts";
import { isShared, openShared, type SharedModel, shareModel } from "./share.ts";
import { type Strip, strips } from "./strips.ts";
import { type RunOptions, TileRunner } from "./tiles.ts";

interface Engine {
  readonly runner: TileRunner;
  readonly budget: Budget;
}

/**
 * A model ready to enlarge images. Runs are computed on threads of the addon's own, one at a time in
 * the order in which they were asked for; the event loop stays free. Call `dispose()` (or declare it
 * with `using`) when done, or `await using` to let what is asked for end first.
 */
export class Upscaler {
  #engine: Engine | null;
  /** Where the network runs. */
  readonly device: "cpu" | "cuda";
  readonly #defaults: UpscalerOptions;
  readonly #calls = new Calls();

  /** ERR_ARGUMENT for a limit that is none, ERR_GPU_UNAVAILABLE for a GPU that is not there. */
  constructor(model: Model, options: UpscalerOptions & Pick<LoadOptions, "device"> = {}) {
    this.device = chosenDevice(options.device ?? "auto");
    const runner = new TileRunner(model, this.device);
    this.#engine = { runner, budget: new Budget(runner) };
    this.#defaults = options;
    checkLimit(options.maxMemory);
  }

  /**
   * Opens a model file of any kind (.pth or .safetensors, full precision or quantised; the file
   * knows its architecture, scale and bits), or what {@link Upscaler.share} gave in any thread of
   * this process. Errors are those of {@link openModel}, ERR_ABORTED, ERR_GPU_UNAVAILABLE.
   */
  static async load(source: string | SharedModel, options: LoadOptions = {}): Promise<Upscaler> {
    checkLimit(options.maxMemory);
    const { threads, signal } = options;
    if (signal?.aborted) throw stopped("Loading", signal);
    if (threads !== undefined) setThreads(threads);
    const model = isShared(source) ? openShared(source) : await openModel(source);
    if (signal?.aborted) throw stopped("Loading", signal);
    return new Upscaler(model, options);
  }

  /** The model; ERR_DISPOSED after dispose(). */
  get model(): Model {
    return this.#alive().runner.model;
  }

  /** Factor by which both sides grow. */
  get scale(): number {
    return this.model.net.config.scale;
  }

  /** Bits of weights and activations; 32 for a float model. */
  get bits(): number {
    return this.model.quantised?.policy.bits ?? 32;
  }

  /**
   * The image `scale` times as large, with the same channels and depth. The image is looked at until
   * the promise is settled and must not change before. Rejects with ERR_IMAGE for an image that is
   * damaged, too small or too large, ERR_SHAPE for an `out` that does not fit, ERR_OUT_OF_MEMORY
   * before anything is allocated (the image itself is not counted, the result is), ERR_ABORTED as
   * soon as `signal` fires, ERR_DISPOSED where dispose() came first.
   */
  async run(image: RasterImage, options: RunImageOptions = {}): Promise<RasterImage> {
    const { scale } = this;
    checkUpscalable(image, scale);
    const shape = enlarged(image, scale);
    if (options.out) checkOut(options.out, shape);
    return this.#inTurn("run", image, options, async (engine, call) => {
      const length = shape.width * shape.height * shape.channels;
      const held = options.out ? 0 : (length * shape.depth) / 8;
      const settings = this.#settings(engine, image, held, options, call);
      const data = options.out ?? samples(length, shape.depth);
      for await (const strip of strips(engine.runner, image, settings)) {
        data.set(strip.data, strip.y * shape.width * shape.channels);
      }
      return { ...shape, data };
    });
  }

  /**
   * The enlarged image as bands of whole rows from top to bottom, each `scale` times as wide and as
   * many rows as a row of tiles leaves. Of the result only one band is held; of an image given as
   * {@link ImageRows} (without alpha), only the rows under the tiles at work. Between two bands other
   * runs have their turn, so a slow reader holds nobody up. Ends early (`break`) without an error;
   * throws as run() does, and ERR_SHAPE where rows of the image are missing or too many.
   */
  async *stream(
    image: RasterImage | ImageRows,
    options: UpscaleOptions = {},
  ): AsyncGenerator<Band, void, undefined> {
    for await (const { y, height, data } of this.#bands(image, options)) {
      yield { y, height, data: data.slice() };
    }
  }

  /** The enlarged image as the bytes of a PNG file, in order; else as {@link Upscaler.stream}. */
  png(
    image: RasterImage | ImageRows,
    options: UpscaleOptions = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const bands = this.#bands(image, options);
    const rows = async function* () {
      for await (const { data } of bands) yield data;
    };
    return pngChunks(enlarged(image, this.scale), rows());
  }

  /**
   * Reads an image that save() can enlarge. Throws ERR_OUT_OF_MEMORY by its header where save()
   * would, before it is decoded, and else as {@link readImage} and run().
   */
  async read(path: string, options: UpscalerOptions = {}): Promise<RasterImage> {
    const [engine, outline] = [this.#alive(), await outlineImage(path)];
    if (outline) this.#settings(engine, outline, savingBytes(outline, this.scale), options);
    const image = await readImage(path);
    checkUpscalable(image, this.scale, path, false);
    return image;
  }

  /**
   * Enlarges an image into a PNG file, strip by strip: the same pixels as those of run() with the
   * same tiles, however large. The file appears when it is complete; nothing is left behind
   * otherwise. Throws as run() does (the image and what decoding it took are counted, the result is
   * not), and ERR_IO.
   */
  async save(image: RasterImage, path: string, options: UpscaleOptions = {}): Promise<Saved> {
    const { scale } = this;
    checkUpscalable(image, scale, "image", false);
    return this.#inTurn("save", image, options, async (engine, call) => {
      const held = savingBytes(image, scale);
      const settings = this.#settings(engine, image, held, options, call);
      const shape = enlarged(image, scale);
      const rows = async function* () {
        for await (const strip of strips(engine.runner, image, settings)) yield strip.data;
      };
      await fillFileAtomic(path, (append) =>
        writePng(shape, rows(), (bytes) => {
          call.signal.throwIfAborted();
          return append(bytes);
        }),
      );
      return { width: shape.width, height: shape.height, tiling: settings.tiling };
    });
  }

  /** What this upscaler does and has done. ERR_DISPOSED after dispose(). */
  stats(): Stats {
    return {
      ...this.#calls.stats,
      peakBytes: native().peakBytes(false),
      device: this.device,
      isa: native().backendName(),
      bits: this.bits,
    };
  }

  /**
   * The model's weights in memory that all threads of this process can see, to be posted to a worker
   * (`postMessage`, `workerData`) and given to {@link Upscaler.load} there: no worker reads the file
   * or holds weights of its own. Stays valid after dispose().
   */
  share(): SharedModel {
    return shareModel(this.model);
  }

  /** Stops what runs and what waits (ERR_DISPOSED there) and frees the model. May be called again. */
  dispose(): void {
    const engine = this.#engine;
    this.#engine = null;
    this.#calls.fail(disposed());
    engine?.runner.release();
  }

  /** {@link Upscaler.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Waits until everything asked for has ended, then disposes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#calls.idle();
    this.dispose();
  }

  #alive(): Engine {
    if (!this.#engine) throw disposed();
    return this.#engine;
  }

  #open(kind: RunMessage["kind"], image: ImageShape, signal?: AbortSignal): Call {
    const { scale, bits, device } = this;
    return this.#calls.open(signal, { kind, image: enlarged(image, 1), scale, bits, device });
  }

  /** Runs `body` when its turn has come, so that whatever stops the call stops its tiles too. */
  async #inTurn<T>(
    kind: "run" | "save",
    image: ImageShape,
    options: UpscaleOptions,
    body: (engine: Engine, call: Call) => Promise<T>,
  ): Promise<T> {
    const call = this.#open(kind, image, options.signal);
    try {
      const result = await this.#calls.turn(call, () => body(this.#alive(), call));
      this.#calls.finish(call);
      return result;
    } catch (cause) {
      const error = call.error(cause);
      this.#calls.close(call, error);
      throw error;
    }
  }

  /** Strips of a result, each made in a turn of its own and overwritten by the next. */
  async *#bands(
    image: RasterImage | ImageRows,
    options: UpscaleOptions,
  ): AsyncGenerator<Strip, void, undefined> {
    if (isRows(image)) checkSides(image);
    else checkUpscalable(image, this.scale, "image", false);
    const call = this.#open("stream", image, options.signal);
    let walk: AsyncGenerator<Strip> | null = null;
    const next = (): Promise<IteratorResult<Strip>> => {
      const engine = this.#alive();
      walk ??= strips(engine.runner, image, this.#settings(engine, image, 0, options, call));
      return walk.next();
    };
    try {
      for (;;) {
        const { value, done } = await this.#calls.turn(call, next);
        if (done) break;
        yield value;
      }
      this.#calls.finish(call);
    } catch (cause) {
      const error = call.error(cause);
      this.#calls.close(call, error);
      throw error;
    } finally {
      this.#calls.close(call); // also where the reader left
      await (walk as AsyncGenerator<Strip> | null)?.return(undefined);
    }
  }

  /** Tiling and routing of one run that holds `held` bytes beside its work. */
  #settings(
    { budget }: Engine,
    image: ImageShape,
    held: number,
    options: UpscaleOptions,
    call?: Call,
  ): RunOptions {
    const { tile, routing, seed, maxMemory } = settled(this.#defaults, options);
    const how = { routing, seed };
    const { tiling } = budget.fit(image, tile, how, held, maxMemory);
    if (!call) return { ...how, tiling };
    const reporter = new ShareReporter(options.onProgress, call.fail);
    const onProgress = (share: number): void =>
      share < 1 ? reporter.update(share) : reporter.finish();
    return { ...how, tiling, signal: call.signal, onProgress };
  }
}
