/**
 * Turns traced calls into the list that the native plan replays: linear weights packed once,
 * calls grouped into segments, and an address for every value. A value that lives within one
 * segment gets room for a tile of rows in the running thread's memory; the others share an arena by
 * first and last use. native/engine/plan.hpp explains the encoding.
 */
import { Graph, type TracedCall } from "../autograd.ts";
import { type F32, native, type U8 } from "../binding.ts";
import { bytes, type NativeArray } from "../tensor.ts";
import { rowWise, type Segment, segmentsOf } from "./segments.ts";

/** Addresses are multiples of this many bytes (one cache line). */
const ALIGNMENT = 64;

/** A tile's values should fit this many bytes: half of a core's second-level cache. */
const TILE_BYTES = 512 * 1024;

/** Rows of a tile: at least enough to keep kernels busy, at most what a few microseconds take. */
const TILE_ROWS = { least: 96, most: 768, step: 48 } as const;

/** Marks the head of a segment in the list, where a call has its op index. */
const SEGMENT = -1;

/** Places of a view: constants follow. */
const PLACE = { tile: -2, absent: -1, arena: 0, input: 1, output: 2, constants: 3 } as const;

/** Outputs of packed linear layers are padded to this many (native/core/ops/products.hpp). */
const PACKED_WIDTH = 16;

/** A list for the native plan. */
export interface Encoded {
  readonly code: number[];
  readonly constants: readonly NativeArray[];
  readonly arenaBytes: number;
  /** What each timed step runs: one op, or the ops of a segment joined by "+". */
  readonly steps: readonly string[];
}

interface Life {
  readonly bytes: number;
  readonly first: number;
  last: number;
  offset: number;
}

const isArray = (operand: unknown): operand is NativeArray => ArrayBuffer.isView(operand);
const roundUp = (n: number, to: number): number => Math.ceil(n / to) * to;

/** First-fit addresses for buffers by their first and last use; returns the room they need. */
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

/** Linear layers whose weights stay, with the weights in the backend's own layout. */
function packWeights(calls: readonly TracedCall[]): TracedCall[] {
  const stays = (operand: unknown): boolean =>
    operand === null || (isArray(operand) && !Graph.isTraced(operand.buffer as ArrayBuffer));
  return calls.map((call): TracedCall => {
    const o = call.operands;
    if (call.op === "linear" && o.slice(1, 3).every(stays)) {
      const [rows, cols, out] = o.slice(4) as number[];
      const packed = bytes(4 * (cols + 1) * roundUp(out, PACKED_WIDTH));
      native().packLinear(o[1] as F32, o[2] as F32 | null, packed, cols, out);
      return { op: "packedLinear", operands: [o[0], packed, o[3], rows, cols, out] };
    }
    if (call.op === "codedLinear" && o.slice(1, 7).every(stays)) {
      const [rows, cols, out, xBits, weightBits, ...rest] = o.slice(8) as number[];
      const packed = bytes((2 * roundUp(cols, 4) + 12) * roundUp(out, PACKED_WIDTH));
      const [weight, ...bounds] = o.slice(1, 7) as [U8, F32, F32, F32, F32, F32 | null];
      const sizes = [cols, out, xBits, weightBits, ...rest] as const;
      native().packCodedLinear(
        weight,
        ...(bounds as [F32, F32, F32, F32, F32 | null]),
        packed,
        ...(sizes as unknown as [number, number, number, number, number, number, number]),
      );
      const operands = [o[0], packed, o[7], rows, cols, out, xBits, weightBits];
      return { op: "packedCodedLinear", operands };
    }
    return call;
  });
}

/** Life of every buffer that some call writes, counted in segments. */
function livesOf(
  calls: readonly TracedCall[],
  segments: readonly Segment[],
): Map<ArrayBuffer, Life> {
  const lives = new Map<ArrayBuffer, Life>();
  segments.forEach((segment, at) => {
    for (const operand of calls.slice(segment.first, segment.last + 1).flatMap((c) => c.operands)) {
      if (!isArray(operand) || !Graph.isTraced(operand.buffer as ArrayBuffer)) continue;
      const life = lives.get(operand.buffer as ArrayBuffer);
      const size = roundUp(operand.buffer.byteLength, ALIGNMENT);
      if (life) life.last = at;
      else
        lives.set(operand.buffer as ArrayBuffer, { bytes: size, first: at, last: at, offset: 0 });
    }
  });
  return lives;
}

/** Addresses of the values that live within one segment, for tiles of `rows` rows. */
interface Tile {
  readonly lives: Map<ArrayBuffer, Life>;
  readonly rows: number;
  readonly bytes: number;
}

function tileOf(
  calls: readonly TracedCall[],
  segment: Segment,
  within: (buffer: ArrayBuffer) => boolean,
): Tile {
  const lives = new Map<ArrayBuffer, Life>();
  const perRow = (b: ArrayBufferLike): number => b.byteLength / segment.rows;
  const outside = new Set<ArrayBufferLike>();
  for (let at = segment.first; at <= segment.last; at++) {
    for (const i of segment.rows ? rowWise(calls[at])!.tiled : []) {
      const operand = calls[at].operands[i];
      if (!isArray(operand)) continue;
      const life = lives.get(operand.buffer as ArrayBuffer);
      if (!within(operand.buffer as ArrayBuffer)) outside.add(operand.buffer);
      else if (life) life.last = at;
      else lives.set(operand.buffer as ArrayBuffer, { bytes: 0, first: at, last: at, offset: 0 });
    }
  }
  const traffic = [...lives.keys(), ...outside].reduce((sum, buffer) => sum + perRow(buffer), 0);
  const fitting = Math.floor(TILE_BYTES / Math.max(1, traffic) / TILE_ROWS.step) * TILE_ROWS.step;
  const rows = Math.min(segment.rows, Math.max(TILE_ROWS.least, Math.min(TILE_ROWS.most, fitting)));
  const sized = new Map(
    [...lives].map(([buffer, life]): [ArrayBuffer, Life] => [
      buffer,
      { ...life, bytes: roundUp(perRow(buffer) * rows, ALIGNMENT) },
    ]),
  );
  return { lives: sized, rows, bytes: placeBuffers(sized.values()) };
}

/** Encodes `calls`, whose first value is `input` and whose last is `output`; see native/engine. */
export function encode(
  traced: readonly TracedCall[],
  input: F32,
  output: F32,
  fused: boolean,
): Encoded {
  const calls = packWeights(traced);
  const segments = fused
    ? segmentsOf(calls)
    : calls.map((_, at): Segment => ({ first: at, last: at, rows: 0 }));
  const opIndex = new Map(
    native()
      .opNames()
      .map((name, i) => [name, i]),
  );
  const lives = livesOf(calls, segments);
  lives.delete(output.buffer as ArrayBuffer);
  const isShort = (buffer: ArrayBuffer): boolean => {
    const life = lives.get(buffer);
    return life !== undefined && life.first === life.last && segments[life.first].rows > 0;
  };
  const tiles = segments.map((segment) => tileOf(calls, segment, isShort));
  for (const tile of tiles) for (const buffer of tile.lives.keys()) lives.delete(buffer);
  const arenaBytes = placeBuffers(lives.values());

  const constants: NativeArray[] = [];
  const constantIndex = new Map<string, number>();
  const ids = new Map<ArrayBufferLike, number>();
  const constant = (array: NativeArray): number => {
    if (!ids.has(array.buffer)) ids.set(array.buffer, ids.size);
    const key = `${ids.get(array.buffer)}:${array.byteOffset}:${array.length}`;
    const known = constantIndex.get(key);
    if (known !== undefined) return known;
    constantIndex.set(key, constants.push(array) - 1);
    return constants.length - 1;
  };
  const place = (array: NativeArray, tile: Tile): number[] => {
    if (array.buffer === input.buffer) return [PLACE.input, array.byteOffset];
    if (array.buffer === output.buffer) return [PLACE.output, array.byteOffset];
    const near = tile.lives.get(array.buffer as ArrayBuffer);
    if (near) return [PLACE.tile, near.offset];
    const far = lives.get(array.buffer as ArrayBuffer);
    if (far) return [PLACE.arena, far.offset + array.byteOffset];
    return [PLACE.constants + constant(array), 0];
  };

  const code: number[] = [];
  segments.forEach((segment, s) => {
    const { rows } = segment;
    const tile = tiles[s];
    const count = segment.last - segment.first + 1;
    if (rows) code.push(SEGMENT, count, rows, tile.rows, tile.bytes);
    for (const call of calls.slice(segment.first, segment.last + 1)) {
      const kind = rows ? rowWise(call)! : null;
      code.push(opIndex.get(call.op)!, kind ? kind.count : -1);
      call.operands.forEach((operand, i) => {
        if (operand === null) code.push(PLACE.absent, 0, 0, 0);
        else if (!isArray(operand)) code.push(i === kind?.count ? operand / rows : operand);
        else {
          const perRow = kind?.tiled.includes(i) ? operand.length / rows : 0;
          code.push(...place(operand, tile), operand.length, perRow);
        }
      });
    }
  });
  const steps = segments.map((segment) =>
    calls
      .slice(segment.first, segment.last + 1)
      .map((call) => call.op)
      .join("+"),
  );
  return { code, constants, arenaBytes, steps };
}
