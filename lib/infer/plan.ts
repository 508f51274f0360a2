/**
 * Freezes a network for one input size: the model's own forward pass runs on a tracing graph, the
 * collected op calls get arena addresses by liveness, and the list goes to the native plan, which
 * replays it without JavaScript. Tape and plan run the same ops in the same order.
 */
import { Graph, type TracedCall, Var } from "../autograd.ts";
import { type F32, type I32, native, type PlanHandle } from "../binding.ts";
import { Spr2qError } from "../errors.ts";
import { forward, type MambaIRv2 } from "../models/mambairv2.ts";
import type { Sites } from "../models/sites.ts";
import type { Router, RoutingMode } from "../nn/routing.ts";
import { Router as TokenRouter } from "../nn/routing.ts";
import type { NativeArray } from "../tensor.ts";

/** Arena addresses are multiples of this many bytes (one cache line). */
const ALIGNMENT = 64;

interface Life {
  readonly bytes: number;
  readonly first: number;
  last: number;
  offset: number;
}

const isArray = (operand: unknown): operand is NativeArray => ArrayBuffer.isView(operand);

/** First-fit addresses for buffers by their first and last use; returns the arena's size. */
function placeBuffers(lives: Iterable<Life>): number {
  const placed: Life[] = [];
  let size = 0;
  for (const life of [...lives].sort((a, b) => a.first - b.first || b.bytes - a.bytes)) {
    const rivals = placed
      .filter((other) => other.last >= life.first && other.first <= life.last)
      .sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const rival of rivals) {
      if (offset + life.bytes <= rival.offset) break;
      offset = Math.max(offset, rival.offset + rival.bytes);
    }
    life.offset = offset;
    placed.push(life);
    size = Math.max(size, offset + life.bytes);
  }
  return size;
}

/** One frozen network for images of height x width, batch 1. */
export class Plan {
  readonly width: number;
  readonly height: number;
  readonly scale: number;
  readonly arenaBytes: number;
  readonly callCount: number;
  readonly #handle: PlanHandle;

  /** Traces `net` with `sites` for one image size and routing; see {@link Router} for the noise. */
  constructor(
    net: MambaIRv2,
    sites: Sites,
    width: number,
    height: number,
    routing: { readonly mode: RoutingMode; readonly seed: number; readonly tile?: number },
  ) {
    this.width = width;
    this.height = height;
    this.scale = net.config.scale;
    const graph = new Graph("tracing");
    const input = new Var(new Float32Array(width * height * 3), [1, height, width, 3]);
    const router: Router = new TokenRouter(routing);
    const output = forward(graph, net, input, sites, router);
    const encoded = encode(graph.calls, input.data, output.data);
    this.arenaBytes = encoded.arenaBytes;
    this.callCount = graph.calls.length;
    this.#handle = native().createPlan(
      Float64Array.from(encoded.code),
      encoded.constants,
      encoded.arenaBytes,
      input.size,
      output.size,
    );
  }

  /** Upscales (height, width, 3) floats in 0..1; ERR_ABORTED where `signal` fires first. */
  async run(image: F32, signal?: AbortSignal): Promise<F32> {
    signal?.throwIfAborted();
    const output = new Float32Array(this.width * this.height * 3 * this.scale ** 2);
    const cancel: I32 = new Int32Array(1);
    const stop = (): void => {
      cancel[0] = 1;
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const finished = await native().runPlan(this.#handle, image, output, cancel);
      if (!finished) {
        throw new Spr2qError("ERR_ABORTED", "Upscaling was stopped before its end.", {
          cause: signal?.reason,
        });
      }
    } finally {
      signal?.removeEventListener("abort", stop);
    }
    return output;
  }
}

interface Encoded {
  readonly code: number[];
  readonly constants: NativeArray[];
  readonly arenaBytes: number;
}

/** Arrays that some call writes are arena buffers; arrays that none writes are constants. */
function encode(calls: readonly TracedCall[], input: F32, output: F32): Encoded {
  const opIndex = new Map(
    native()
      .opNames()
      .map((name, i) => [name, i]),
  );
  const lives = new Map<ArrayBuffer, Life>();
  calls.forEach((call, at) => {
    for (const operand of call.operands) {
      if (!isArray(operand) || !isTraced(operand)) continue;
      const life = lives.get(operand.buffer);
      const bytes = Math.ceil(operand.buffer.byteLength / ALIGNMENT) * ALIGNMENT;
      if (life) life.last = at;
      else lives.set(operand.buffer, { bytes, first: at, last: at, offset: 0 });
    }
  });
  lives.delete(output.buffer);
  const arenaBytes = placeBuffers(lives.values());
  const constants: NativeArray[] = [];
  const constantIndex = new Map<string, number>();
  const ids = new Map<ArrayBuffer, number>();
  const code: number[] = [];
  const place = (array: NativeArray): number[] => {
    if (array.buffer === input.buffer) return [1, array.byteOffset, array.length];
    if (array.buffer === output.buffer) return [2, array.byteOffset, array.length];
    const life = lives.get(array.buffer);
    if (life) return [0, life.offset + array.byteOffset, array.length];
    if (!ids.has(array.buffer)) ids.set(array.buffer, ids.size);
    const key = `${ids.get(array.buffer)}:${array.byteOffset}:${array.length}`;
    let index = constantIndex.get(key);
    if (index === undefined) {
      index = constants.length;
      constants.push(array);
      constantIndex.set(key, index);
    }
    return [3 + index, 0, array.length];
  };
  for (const call of calls) {
    code.push(opIndex.get(call.op)!);
    for (const operand of call.operands) {
      if (operand === null) code.push(-1, 0, 0);
      else if (isArray(operand)) code.push(...place(operand));
      else code.push(operand);
    }
  }
  return { code, constants, arenaBytes };

  function isTraced(array: NativeArray): boolean {
    return array.buffer !== input.buffer && Graph.isTraced(array.buffer as ArrayBuffer);
  }
}
