/**
 * Turns traced calls into the list that the native plan replays: calls rewritten and grouped into
 * segments, and an address for every value. A value that lives within one segment gets room for a
 * tile of rows in the running thread's memory; the others share an arena by first and last use.
 * Where the arena is larger than caches are, what a segment leaves behind is made in the tile too
 * and then written past the caches. native/engine/plan.hpp explains the encoding.
 */
import { Graph, type Operand, type OperandList, type TracedCall } from "../autograd.ts";
import { type F32, native } from "../binding.ts";
import type { NativeArray } from "../tensor.ts";
import { ALIGNMENT, type Life, placeBuffers, placeWithin, roundUp } from "./arena.ts";
import { inBands } from "./bands.ts";
import { fuseCodedAttentions, fuseCodedConvolutions, fuseCodedLinears, STREAMED } from "./fuse.ts";
import {
  foldConstants,
  gateInConvolution,
  gatherBehindScan,
  isArray,
  packWeights,
  recomputeShallow,
} from "./rewrite.ts";
import { type Joins, type Segment, segmentsOf } from "./segments.ts";
import { shareRows } from "./sharing.ts";
import { CPU, type Target } from "./target.ts";

/** A tile's values should fit this many bytes: half of a core's second-level cache. */
const TILE_BYTES = 512 * 1024;

/** Rows of a tile: at least enough to keep kernels busy, at most what a few microseconds take. */
const TILE_ROWS = { least: 96, most: 768, step: 48 } as const;

/** Values of more bytes in all outgrow the caches: writing past them saves a third of the traffic. */
const STREAMED_BYTES = 32 * 1024 * 1024;

/** Marks the head of a segment in the list, where a call has its op index. */
const SEGMENT = -1;

/** Places of a view: constants follow. */
const PLACE = { tile: -2, absent: -1, arena: 0, input: 1, output: 2, constants: 3 } as const;

/** A list for the native plan. */
export interface Encoded {
  readonly code: number[];
  readonly constants: readonly NativeArray[];
  readonly arenaBytes: number;
  /** What each timed step runs: one op, or the ops of a segment joined by "+". */
  readonly steps: readonly string[];
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

/** Addresses of values in the memory of a thread that works on tiles of `rows` rows. */
interface Tile {
  readonly lives: Map<ArrayBuffer, Life>;
  /** Values that are copied to the arena at the end of a tile. */
  readonly exported: readonly ArrayBuffer[];
  /** Fused layers that write their result to the arena themselves, past the caches. */
  readonly streaming: ReadonlySet<TracedCall>;
  readonly rows: number;
  readonly bytes: number;
}

/** `within` tells values that live in this segment alone, `streams` those that it may export. */
function tileOf(
  calls: readonly TracedCall[],
  segment: Segment,
  joins: Joins,
  within: (buffer: ArrayBuffer) => boolean,
  streams: (buffer: ArrayBuffer) => boolean,
): Tile {
  const lives = new Map<ArrayBuffer, Life>();
  const exported: ArrayBuffer[] = [];
  const streaming = new Set<TracedCall>();
  const perRow = (b: ArrayBufferLike): number => b.byteLength / segment.rows;
  const outside = new Set<ArrayBufferLike>();
  const readAgain = (buffer: ArrayBuffer, at: number): boolean =>
    calls
      .slice(at + 1, segment.last + 1)
      .some((call) => call.operands.some((o) => isArray(o) && o.buffer === buffer));
  for (let at = segment.first; at <= segment.last; at++) {
    const kind = segment.rows ? joins(calls[at])! : null;
    for (const i of kind?.tiled ?? []) {
      const operand = calls[at].operands[i];
      if (!isArray(operand)) continue;
      const { buffer } = operand;
      const life = lives.get(buffer);
      const leaves = !within(buffer);
      if (life) life.last = Math.max(life.last, at);
      else if (!leaves) lives.set(buffer, { bytes: 0, first: at, last: at, offset: 0 });
      else if (
        STREAMED.y === i &&
        calls[at].op === STREAMED.op &&
        streams(buffer) &&
        !readAgain(buffer, at)
      ) {
        streaming.add(calls[at]);
        outside.add(buffer);
      } else if (kind?.outputs.includes(i) && streams(buffer) && !(operand instanceof Uint8Array)) {
        exported.push(buffer);
        lives.set(buffer, { bytes: 0, first: at, last: segment.last + 1, offset: 0 });
      } else outside.add(buffer);
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
  return { lives: sized, exported, streaming, rows, bytes: placeBuffers(sized.values()) };
}

/** The same values from calls that suit a plan better. */
const rearranged = (calls: readonly TracedCall[], input: F32): TracedCall[] =>
  recomputeShallow(gatherBehindScan(gateInConvolution(calls)), input);

/** What is known of a plan's values before they have addresses. */
interface Settled {
  readonly calls: readonly TracedCall[];
  readonly segments: readonly Segment[];
  /** Values that outlive a segment. */
  readonly lives: Map<ArrayBuffer, Life>;
  /** Those that do not. */
  readonly shortLived: ReadonlySet<ArrayBuffer>;
}

function settle(
  calls: readonly TracedCall[],
  output: F32,
  { joins, tiled }: Target,
  fused: boolean,
): Settled {
  const segments = fused
    ? segmentsOf(calls, joins)
    : calls.map((_, at): Segment => ({ first: at, last: at, rows: 0 }));
  const lives = livesOf(calls, segments);
  lives.delete(output.buffer);
  const isShort = (buffer: ArrayBuffer): boolean => {
    const life = lives.get(buffer);
    return tiled && life !== undefined && life.first === life.last && segments[life.first].rows > 0;
  };
  const shortLived = new Set([...lives.keys()].filter(isShort));
  for (const buffer of shortLived) lives.delete(buffer);
  shareRows(calls, segments, lives, joins);
  return { calls, segments, lives, shortLived };
}

/**
 * Gives values addresses in the first `spare` bytes of the output, as long as nothing of the result
 * is there: codes only, which no segment exports.
 */
function placeInOutput({ calls, segments, lives }: Settled, output: F32, spare: number): void {
  const others = new Set<Life>();
  let written = segments.length;
  segments.forEach((segment, s) => {
    for (const operand of calls.slice(segment.first, segment.last + 1).flatMap((c) => c.operands)) {
      if (!isArray(operand)) continue;
      if (operand.buffer === output.buffer) written = Math.min(written, s);
      const life = lives.get(operand.buffer);
      if (life && !(operand instanceof Uint8Array)) others.add(life);
    }
  });
  const codes = [...new Set(lives.values())].filter(
    (life) => !others.has(life) && life.last < written,
  );
  const outside = new Set(placeWithin(codes, spare));
  for (const life of codes) life.inOutput = !outside.has(life);
}

/** Values in the arena. */
const inArena = (lives: ReadonlyMap<ArrayBuffer, Life>): Life[] =>
  [...new Set(lives.values())].filter((life) => !life.inOutput);

/** Positions of the convolutions at which the arena holds more than at any other call. */
function heaviest({ calls, segments, lives }: Settled): number[] {
  const loads = new Float64Array(segments.length);
  for (const { first, last, bytes } of inArena(lives))
    for (let s = first; s <= last; s++) loads[s] += bytes;
  const isConvolution = (s: number): boolean => calls[segments[s].first].op === "conv2d";
  const most = loads.reduce((max, load, s) => (isConvolution(s) ? max : Math.max(max, load)), 0);
  return segments.flatMap(({ first }, s) => (isConvolution(s) && loads[s] > most ? [first] : []));
}

/**
 * Encodes `calls`, whose first value is `input` and whose last is `output`; see native/engine.
 * Without `fused`, every call runs over the whole image before the next. `spare` bytes of the output
 * may hold other values before the result.
 */
export function encode(
  traced: readonly TracedCall<Operand | OperandList>[],
  input: F32,
  output: F32,
  fused: boolean,
  spare = 0,
  target: Target = CPU,
): Encoded {
  const { caller, joins, tiled } = target;
  const packed = packWeights(foldConstants(traced, input, caller), caller);
  const joined = fused
    ? fuseCodedConvolutions(fuseCodedLinears(fuseCodedAttentions(rearranged(packed, input))))
    : packed;
  let settled = settle(joined, output, target, fused);
  placeInOutput(settled, output, spare);
  const heavy = fused && tiled ? heaviest(settled) : [];
  if (heavy.length > 0) {
    settled = settle(heavy.reduceRight(inBands, joined), output, target, fused);
    placeInOutput(settled, output, spare);
  }
  const { calls, segments, lives, shortLived } = settled;
  const opIndex = new Map(
    native()
      .opNames()
      .map((name, i) => [name, i]),
  );
  const arenaBytes = placeBuffers(inArena(lives));
  const streams = (buffer: ArrayBuffer): boolean =>
    tiled && arenaBytes + spare > STREAMED_BYTES && lives.has(buffer);
  const tiles = segments.map((segment) =>
    tileOf(calls, segment, joins, (buffer) => shortLived.has(buffer), streams),
  );

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
    if (far) return [far.inOutput ? PLACE.output : PLACE.arena, far.offset + array.byteOffset];
    return [PLACE.constants + constant(array), 0];
  };

  const code: number[] = [];
  segments.forEach((segment, s) => {
    const { rows } = segment;
    const tile = tiles[s];
    const count = segment.last - segment.first + 1;
    if (rows) {
      code.push(SEGMENT, count, rows, tile.rows, tile.bytes, tile.exported.length);
      for (const buffer of tile.exported) {
        const [near, far] = [tile.lives, lives].map((map) => map.get(buffer)!.offset);
        code.push(near, far, buffer.byteLength / rows);
      }
    }
    for (const call of calls.slice(segment.first, segment.last + 1)) {
      const kind = rows ? joins(call)! : null;
      code.push(opIndex.get(call.op)!, kind?.count ?? -1, kind?.first ?? -1);
      call.operands.forEach((operand, i) => {
        if (operand === null) code.push(PLACE.absent, 0, 0, 0);
        else if (i === STREAMED.flag && tile.streaming.has(call)) code.push(1);
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
