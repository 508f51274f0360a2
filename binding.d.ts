/**
 * The native boundary: every function of the addon, in the order in which native/addon/addon.cpp
 * exports it. native/core/ops.hpp explains each op: shapes, equations, optional operands. Tensors
 * are typed arrays that the caller allocates, outputs included; sizes are checked on the other
 * side. null stands for an absent optional operand.
 */
export type F32 = Float32Array<ArrayBuffer>;
export type U8 = Uint8Array<ArrayBuffer>;
export type I32 = Int32Array<ArrayBuffer>;

/** An opaque native plan; freed by releasePlan(), or by the garbage collector. */
export type PlanHandle = object;

/** The same on the GPU. */
export type DevicePlanHandle = object;

/** What a CUDA library says about this machine; `code` is "OK" or the reason, ERR_CUDA_... */
export interface CudaStatus {
  readonly code: string;
  readonly text: string;
  /** True for the test shim, whose "devices" compute in host memory. */
  readonly hostMemory: boolean;
  /** `architecture` is 89 for compute capability 8.9. */
  readonly devices: readonly { name: string; architecture: number; memoryBytes: number }[];
}

/**
 * Bytes had from the driver and handed out, blocks handed out and new ones, copies from and to the
 * host with their bytes, copies on the device, and kernels launched.
 */
export interface DeviceCounters {
  readonly held: number;
  readonly used: number;
  readonly peak: number;
  readonly taken: number;
  readonly fresh: number;
  readonly uploads: number;
  readonly uploaded: number;
  readonly downloads: number;
  readonly downloaded: number;
  readonly copies: number;
  readonly launches: number;
}

export interface NativeBinding {
  /** An ArrayBuffer of that many bytes on a 64-byte boundary, contents undefined. */
  allocate(bytes: number): ArrayBuffer;
  /** Backends that this machine can run, best first; "reference" comes last. */
  backends(): string[];
  /** The backend in use. */
  backendName(): string;
  /** Chooses a backend of {@link backends} for every later call. */
  useBackend(name: string): void;
  /** Number of threads; with an argument, sets it first. */
  threads(count?: number): number;
  /**
   * Most bytes of plan arenas and threads' scratch held at once so far, or since the last call with
   * `restart`.
   */
  peakBytes(restart: boolean): number;
  /** Bytes of the constants that plans hold; equal ones of all plans and workers are held once. */
  constantBytes(): number;
  /**
   * Tells the garbage collector of memory that it cannot see: bytes more, or fewer below zero.
   * Returns all bytes outside of its heap that it knows of.
   */
  adjustMemory(bytes: number): number;
  /**
   * Opens the CUDA library at that path and asks it for its devices; never throws for what it
   * finds. A library over host memory becomes one more of {@link backends}.
   */
  openCuda(path: string): CudaStatus;
  /**
   * Opens the first GPU of the last opened usable library for this thread, once; throws
   * "ERR_CUDA_...: why not". From then on ops take tensors on it: in place of a typed array a
   * Float64Array (address, elements, bytes an element), for all tensors of a call or for none.
   */
  openDevice(): void;
  /** Gives everything of this thread back to the driver, stream included. */
  closeDevice(): void;
  /** Address of that many bytes on the GPU, contents undefined, from a caching allocator. */
  deviceTake(bytes: number): number;
  deviceGive(address: number): void;
  /** Copies a whole array; the download waits for the ops queued before. */
  deviceUpload(address: number, from: F32 | U8 | I32): void;
  deviceDownload(address: number, into: F32 | U8 | I32): void;
  /** Copies between places on the GPU, in the order of the ops. */
  deviceCopy(to: number, from: number, bytes: number): void;
  /** Gives what is free back to the driver, after waiting for the ops queued before. */
  deviceTrim(): void;
  /** What this thread's memory on the GPU did so far. */
  deviceCounters(): DeviceCounters;
  /** Names of the ops below, in the order of the op indices of a plan. */
  opNames(): string[];
  /** A frozen list of op calls; native/engine/plan.hpp explains the encoding of `code`. */
  createPlan(
    code: Float64Array, constants: readonly (F32 | U8 | I32)[], arenaBytes: number,
    inputFloats: number, outputFloats: number,
  ): PlanHandle;
  /** Frees a plan, at the end of its last run where some are under way. May be repeated. */
  releasePlan(plan: PlanHandle): void;
  /**
   * Runs a plan on a thread of the addon's own; false where `cancel[0]` became non-zero before its
   * end. `noiseTile` is added to the tile number of every route. `onProgress` gets the number of
   * steps done, at most every 50 ms. Rejects with an Error of code ERR_OUT_OF_MEMORY.
   */
  runPlan(plan: PlanHandle, input: F32, output: F32, cancel: I32 | null,
    seconds: Float64Array | null, noiseTile: number,
    onProgress: ((done: number) => void) | null): Promise<boolean>;
  /**
   * As createPlan, on the GPU, where a segment is one kernel and has no memory for tiles; throws
   * "ERR_CUDA_...". Its constants are uploaded once; its calls are recorded into a graph at the
   * first run.
   */
  createDevicePlan(
    code: Float64Array, constants: readonly (F32 | U8 | I32)[], arenaBytes: number,
    inputFloats: number, outputFloats: number,
  ): DevicePlanHandle;
  /** Frees it, at the end of its last run where some are under way. May be repeated. */
  releaseDevicePlan(plan: DevicePlanHandle): void;
  /** Runs it off the event loop; false where `cancel[0]` was non-zero before it began. */
  runDevicePlan(plan: DevicePlanHandle, input: F32, output: F32, cancel: I32 | null,
    noiseTile: number): Promise<boolean>;
  /** Queues a run between places of this thread on the GPU (deviceTake), behind the ops before. */
  runDevicePlanOn(plan: DevicePlanHandle, input: number, output: number, noiseTile: number): void;
  linear(
    x: F32, weight: F32, bias: F32 | null, y: F32, rows: number, inputs: number, outputs: number,
  ): void;
  packLinear(
    weight: F32, bias: F32 | null, packed: U8, inputs: number, outputs: number,
  ): void;
  packedLinear(
    x: F32, packed: U8, y: F32, rows: number, inputs: number, outputs: number,
  ): void;
  linearGradInput(
    gy: F32, weight: F32, gx: F32, rows: number, inputs: number, outputs: number,
  ): void;
  linearGradWeight(
    gy: F32, x: F32, gweight: F32, gbias: F32 | null, rows: number, inputs: number,
    outputs: number,
  ): void;
  codedLinear(
    x: U8, weight: U8, xLower: F32, xUpper: F32, weightLower: F32, weightUpper: F32,
    bias: F32 | null, y: F32, rows: number, inputs: number, outputs: number, xBits: number,
    weightBits: number, xGranularity: number, weightGranularity: number, storageBits: number,
  ): void;
  packCodedLinear(
    weight: U8, xLower: F32, xUpper: F32, weightLower: F32, weightUpper: F32,
    bias: F32 | null, packed: U8, inputs: number, outputs: number, xBits: number,
    weightBits: number, xGranularity: number, weightGranularity: number, storageBits: number,
  ): void;
  packedCodedLinear(
    x: U8, packed: U8, y: F32, rows: number, inputs: number, outputs: number, xBits: number,
    weightBits: number,
  ): void;
  fusedCodedLinear(
    x: U8, packed: U8, added: F32 | null, scale: F32 | null, residual: F32 | null, y: F32 | null,
    normWeight: F32 | null, normBias: F32 | null, lower: F32 | null, upper: F32 | null,
    codes: U8 | null, moreLower: F32 | null, moreUpper: F32 | null, moreCodes: U8 | null,
    rows: number, inputs: number, outputs: number, xBits: number, weightBits: number,
    gelu: number, kept: number, first: number, bits: number, granularity: number,
    moreBits: number, moreGranularity: number, streamed: number, factor: number,
  ): void;
  fusedCodedDepthwiseConv(
    x: U8, weight: U8, xLower: F32, xUpper: F32, weightLower: F32, weightUpper: F32,
    bias: F32 | null, factor: F32, lower: F32, upper: F32, codes: U8, batch: number,
    height: number, width: number, channels: number, kernel: number, xBits: number,
    weightBits: number, xGranularity: number, weightGranularity: number, storageBits: number,
    bits: number, granularity: number,
  ): void;
  gatedDepthwiseConv(
    x: F32, weight: F32, bias: F32 | null, y: F32, batch: number, height: number, width: number,
    channels: number, kernel: number,
  ): void;
  conv2d(
    x: F32, weight: F32, bias: F32 | null, y: F32, batch: number, height: number, width: number,
    inputs: number, outputs: number, kernel: number,
  ): void;
  conv2dGradInput(
    gy: F32, weight: F32, gx: F32, batch: number, height: number, width: number, inputs: number,
    outputs: number, kernel: number,
  ): void;
  conv2dGradWeight(
    gy: F32, x: F32, gweight: F32, gbias: F32 | null, batch: number, height: number,
    width: number, inputs: number, outputs: number, kernel: number,
  ): void;
  depthwiseConv(
    x: F32, weight: F32, bias: F32 | null, y: F32, batch: number, height: number, width: number,
    channels: number, kernel: number,
  ): void;
  depthwiseConvGradInput(
    gy: F32, weight: F32, gx: F32, batch: number, height: number, width: number, channels: number,
    kernel: number,
  ): void;
  depthwiseConvGradWeight(
    gy: F32, x: F32, gweight: F32, gbias: F32 | null, batch: number, height: number,
    width: number, channels: number, kernel: number,
  ): void;
  codedDepthwiseConv(
    x: U8, weight: U8, xLower: F32, xUpper: F32, weightLower: F32, weightUpper: F32,
    bias: F32 | null, y: F32, batch: number, height: number, width: number, channels: number,
    kernel: number, xBits: number, weightBits: number, xGranularity: number,
    weightGranularity: number, storageBits: number,
  ): void;
  layerNorm(x: F32, weight: F32, bias: F32, y: F32, rows: number, channels: number): void;
  layerNormGrad(
    x: F32, weight: F32, gy: F32, gx: F32, gweight: F32, gbias: F32, rows: number,
    channels: number,
  ): void;
  gelu(x: F32, y: F32, n: number): void;
  geluGrad(x: F32, gy: F32, gx: F32, n: number): void;
  sigmoidGate(x: F32, gate: F32, y: F32, n: number): void;
  sigmoidGateGrad(x: F32, gate: F32, gy: F32, gx: F32, ggate: F32, n: number): void;
  multiply(a: F32, b: F32, y: F32, n: number): void;
  add(a: F32, b: F32, y: F32, n: number): void;
  negativeExp(x: F32, y: F32, n: number): void;
  scale(x: F32, y: F32, n: number, factor: number): void;
  scaleAdd(x: F32, scale: F32, a: F32, y: F32, rows: number, channels: number): void;
  scaleAddGrad(
    x: F32, scale: F32, gy: F32, gx: F32, gscale: F32, rows: number, channels: number,
  ): void;
  sliceColumns(x: F32, y: F32, rows: number, columns: number, start: number, count: number): void;
  sliceColumnsGrad(
    gy: F32, gx: F32, rows: number, columns: number, start: number, count: number,
  ): void;
  transpose(x: F32, y: F32, rows: number, columns: number): void;
  gatherRows(x: F32, index: I32, y: F32, rows: number, channels: number): void;
  scatterRows(x: F32, index: I32, y: F32, rows: number, channels: number): void;
  padImage(
    x: F32, mean: F32, y: F32, batch: number, height: number, width: number, paddedHeight: number,
    paddedWidth: number, channels: number, reflect: number,
  ): void;
  pixelShuffle(
    x: F32, mean: F32, y: F32, batch: number, height: number, width: number, channels: number,
    scale: number, outHeight: number, outWidth: number,
  ): void;
  pixelShuffleGrad(
    gy: F32, gx: F32, batch: number, height: number, width: number, channels: number,
    scale: number, outHeight: number, outWidth: number,
  ): void;
  softmax(x: F32, y: F32, rows: number, columns: number): void;
  softmaxGrad(y: F32, gy: F32, gx: F32, rows: number, columns: number): void;
  windowAttention(
    q: F32, k: F32, v: F32, biasTable: F32, probabilityBounds: F32 | null, y: F32,
    probabilities: F32 | null, batch: number, height: number, width: number, heads: number,
    headDim: number, window: number, shift: number, probabilityCodes: number, bits: number,
  ): void;
  codedWindowAttention(
    q: U8, k: U8, v: U8, grid: F32, biasTable: F32, probabilityBounds: F32 | null,
    y: F32 | null, yLower: F32 | null, yUpper: F32 | null, yCodes: U8 | null,
    batch: number, height: number, width: number, heads: number, headDim: number, window: number,
    shift: number, probabilityCodes: number, bits: number, codeBits: number, yBits: number,
    yGranularity: number,
  ): void;
  windowAttentionGrad(
    q: F32, k: F32, v: F32, biasTable: F32, probabilityBounds: F32 | null, gy: F32, gq: F32,
    gk: F32, gv: F32, gbiasTable: F32, gprobabilityBounds: F32 | null, batch: number,
    height: number, width: number, heads: number, headDim: number, window: number, shift: number,
    probabilityCodes: number, bits: number,
  ): void;
  route(
    logits: F32, classes: I32, batch: number, tokens: number, count: number, mode: number,
    seed: number, tile: number, layer: number, first: number,
  ): void;
  routeGrad(
    logits: F32, pool: F32, gprompt: F32, glogits: F32, batch: number, tokens: number,
    count: number, states: number, mode: number, seed: number, tile: number, layer: number,
  ): void;
  sortTokens(
    classes: I32, order: I32, inverse: I32 | null, batch: number, tokens: number, count: number,
  ): void;
  addPrompt(
    c: F32, pool: F32, classes: I32, y: F32, rows: number, count: number, states: number,
  ): void;
  addPromptGrad(
    gy: F32, classes: I32, gpool: F32, rows: number, count: number, states: number,
  ): void;
  selectiveScan(
    u: F32, delta: F32, A: F32, B: F32, C: F32, D: F32, deltaBias: F32, stateBounds: F32 | null,
    y: F32, states: F32 | null, batch: number, length: number, channels: number,
    stateCount: number, stateBits: number,
  ): void;
  selectiveScanGrad(
    u: F32, delta: F32, A: F32, B: F32, C: F32, D: F32, deltaBias: F32, stateBounds: F32 | null,
    gy: F32, gu: F32, gdelta: F32, gA: F32, gB: F32, gC: F32, gD: F32, gdeltaBias: F32,
    gstateBounds: F32 | null, batch: number, length: number, channels: number, stateCount: number,
    stateBits: number,
  ): void;
  quantize(
    x: F32, lower: F32, upper: F32, codes: U8, rows: number, columns: number, granularity: number,
    bits: number,
  ): void;
  dequantize(
    codes: U8, lower: F32, upper: F32, y: F32, rows: number, columns: number, granularity: number,
    bits: number,
  ): void;
  qdq(
    x: F32, lower: F32, upper: F32, y: F32, rows: number, columns: number, granularity: number,
    bits: number,
  ): void;
  qdqGrad(
    x: F32, lower: F32, upper: F32, gy: F32, gx: F32, glower: F32, gupper: F32, rows: number,
    columns: number, granularity: number, bits: number,
  ): void;
  dobi(
    x: F32, lower: F32, upper: F32, rows: number, columns: number, granularity: number,
    bits: number, oneSided: number,
  ): void;
  separateBounds(lower: readonly F32[], upper: readonly F32[], ranges: readonly F32[]): void;
  mergeRectifiers(
    weight: F32, a: F32, b: F32, gates: F32, merged: F32, experts: number, rank: number,
    inputs: number, outputs: number,
  ): void;
  mergeRectifiersGrad(
    gmerged: F32, a: F32, b: F32, gates: F32, ga: F32, gb: F32, ggates: F32, experts: number,
    rank: number, inputs: number, outputs: number,
  ): void;
  l1Loss(x: F32, target: F32, loss: F32, gx: F32, n: number): void;
  featureLoss(x: F32, target: F32, loss: F32, gx: F32, n: number, batch: number): void;
  adam(
    parameters: readonly F32[], gradients: readonly F32[], m: readonly F32[], v: readonly F32[],
    rates: Float64Array, step: number, beta1: number, beta2: number, epsilon: number,
  ): void;
}
