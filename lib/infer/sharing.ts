/** Values that may lie where another one ends, so that a plan's memory holds one of the two. */
import type { TracedCall } from "../autograd.ts";
import type { Life } from "./arena.ts";
import { STREAMED } from "./fuse.ts";
import { isArray } from "./rewrite.ts";
import type { Joins, Segment } from "./segments.ts";

/** Ops that read a row of an operand before they write the same row of their result. */
const IN_PLACE: readonly string[] = ["fusedCodedLinear", "add", "multiply"];
/** Those of them that may also do so where they are no part of a segment. */
const ELEMENTWISE: readonly string[] = ["add", "multiply"];

/** True where a result of `call` may lie where its operand in `buffer` does. */
function worksInPlace(call: TracedCall, buffer: ArrayBuffer): boolean {
  // A wide layer reads its codes once for every block of outputs, after the first ones are written.
  const [codes] = call.operands;
  const reread = call.op === STREAMED.op && isArray(codes) && codes.buffer === buffer;
  return IN_PLACE.includes(call.op) && !reread;
}

/**
 * Lets a value of a segment take the place of one that ends there: a thread reads a tile's rows of
 * the one before it writes those of the other, and no other tile touches them.
 */
export function shareRows(
  calls: readonly TracedCall[],
  segments: readonly Segment[],
  lives: Map<ArrayBuffer, Life>,
  joins: Joins,
): void {
  segments.forEach((segment, s) => {
    const alone = segment.first === segment.last && ELEMENTWISE.includes(calls[segment.first].op);
    if (!segment.rows && !alone) return;
    const lastRead = new Map<ArrayBuffer, number>();
    const written = new Map<ArrayBuffer, number>();
    const untiled = new Set<ArrayBufferLike>();
    for (let at = segment.first; at <= segment.last; at++) {
      const kind = joins(calls[at])!;
      calls[at].operands.forEach((operand, i) => {
        if (!isArray(operand)) return;
        const buffer = operand.buffer as ArrayBuffer;
        const whole = operand.byteLength === buffer.byteLength;
        if (!kind.tiled.includes(i) || !whole) untiled.add(buffer);
        else (kind.outputs.includes(i) ? written : lastRead).set(buffer, at);
      });
    }
    const ending = [...lastRead].filter(([buffer]) => {
      const life = lives.get(buffer);
      return life?.last === s && life.first < s && !untiled.has(buffer);
    });
    for (const [value, at] of written) {
      const life = lives.get(value);
      if (life?.first !== s || untiled.has(value)) continue;
      const place = ending.findIndex(
        ([buffer, read]) =>
          buffer.byteLength === value.byteLength &&
          (read < at || (read === at && worksInPlace(calls[at], buffer))),
      );
      if (place < 0) continue;
      const [[buffer]] = ending.splice(place, 1);
      const shared = lives.get(buffer)!;
      shared.last = life.last;
      lives.set(value, shared);
    }
  });
}
