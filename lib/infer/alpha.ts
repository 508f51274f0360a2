/**
 * Transparency beside a network that knows only RGB. Colour and alpha are upscaled apart, both as
 * straight (not premultiplied) samples:
 *   - the colour of fully transparent pixels means nothing, so it is replaced by that of their
 *     neighbours first: it can neither show through nor draw a fringe around what is visible;
 *   - alpha runs through the network as a grey image, unless it is one value everywhere;
 *   - where alpha is locally constant the result is that constant, so that opaque stays opaque.
 * All of it goes in parts (../io/pause.ts), since images are large and servers must answer meanwhile.
 */
import { type InParts, PIXELS_AT_ONCE } from "../io/pause.ts";
import type { RasterImage } from "../io/raster.ts";

/** Bytes a pixel that {@link fillTransparent} works with: ring, weight and order. */
export const FILL_BYTES: number = 4 + 8 + 4;

/** True for images whose last channel is alpha. */
export function hasAlpha(image: { readonly channels: number }): boolean {
  return image.channels % 2 === 0;
}

/** From `first` to `last` (left out) in the parts after which work yields: [from, to) of each. */
function* parts(first: number, last: number): Generator<[number, number]> {
  for (let from = first; from < last; from += PIXELS_AT_ONCE)
    yield [from, Math.min(last, from + PIXELS_AT_ONCE)];
}

/** The alpha channel alone, as a grey image of the same depth. */
export function* alphaPlane(image: RasterImage): InParts<RasterImage> {
  const { width, height, channels, depth, data } = image;
  const count = width * height;
  const plane = depth === 8 ? new Uint8Array(count) : new Uint16Array(count);
  for (const [from, to] of parts(0, count)) {
    for (let i = from; i < to; i++) plane[i] = data[i * channels + channels - 1];
    yield;
  }
  return { width, height, channels: 1, depth, data: plane };
}

/** The value that all samples share, or null where they differ. */
export function constantValue(samples: RasterImage["data"]): number | null {
  for (let i = 1; i < samples.length; i++) if (samples[i] !== samples[0]) return null;
  return samples[0];
}

/** Calls `visit` with the index of each of the up to eight neighbours of pixel `at`. */
function eachNeighbour(
  at: number,
  width: number,
  height: number,
  visit: (neighbour: number) => void,
): void {
  const [x, y] = [at % width, Math.floor(at / width)];
  for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny++) {
    for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx++) {
      const neighbour = ny * width + nx;
      if (neighbour !== at) visit(neighbour);
    }
  }
}

/**
 * A copy of an image with alpha in which fully transparent pixels have the colour of what is
 * visible around them: ring by ring outwards, each the mean of its neighbours of earlier rings,
 * weighted by alpha in the first ring. An image without a visible pixel, or without a hidden one,
 * comes back as it is. Takes {@link FILL_BYTES} a pixel beside the copy.
 */
export function* fillTransparent(image: RasterImage): InParts<RasterImage> {
  const { width, height, channels } = image;
  const colours = channels - 1;
  const count = width * height;
  let hidden = 0;
  for (const [from, to] of parts(0, count)) {
    for (let i = from; i < to; i++) if (image.data[i * channels + colours] === 0) hidden++;
    yield;
  }
  if (hidden === 0 || hidden === count) return image;
  const data = image.data.slice();
  /** Ring in which a pixel became known: 0 visible, -1 not yet. */
  const ring = new Int32Array(count);
  const weight = new Float64Array(count);
  for (const [from, to] of parts(0, count)) {
    for (let i = from; i < to; i++) {
      weight[i] = data[i * channels + colours];
      ring[i] = weight[i] === 0 ? -1 : 0;
    }
    yield;
  }
  const sum = new Float64Array(colours);
  const fill = (at: number): void => {
    let [total, known] = [0, 0];
    sum.fill(0);
    eachNeighbour(at, width, height, (neighbour) => {
      if (ring[neighbour] < 0 || ring[neighbour] >= ring[at]) return;
      for (let c = 0; c < colours; c++)
        sum[c] += weight[neighbour] * data[neighbour * channels + c];
      total += weight[neighbour];
      known++;
    });
    for (let c = 0; c < colours; c++) data[at * channels + c] = Math.round(sum[c] / total);
    weight[at] = total / known;
  };
  /** Transparent pixels in the order in which rings reach them. */
  const reached = new Int32Array(hidden);
  let end = 0;
  const spread = (from: number, step: number): void =>
    eachNeighbour(from, width, height, (neighbour) => {
      if (ring[neighbour] !== -1) return;
      ring[neighbour] = step;
      reached[end++] = neighbour;
    });
  for (const [from, to] of parts(0, count)) {
    for (let i = from; i < to; i++) if (ring[i] === 0) spread(i, 1);
    yield;
  }
  for (let begin = 0, step = 2; begin < end; step++) {
    const stop = end;
    for (const [from, to] of parts(begin, stop)) {
      for (let i = from; i < to; i++) fill(reached[i]);
      yield;
    }
    for (const [from, to] of parts(begin, stop)) {
      for (let i = from; i < to; i++) spread(reached[i], step);
      yield;
    }
    begin = stop;
  }
  return { ...image, data };
}

/**
 * Puts into `upscaled`, rows of scale*width that begin with those of row `from` and end with those
 * of row `to` - 1 of `plane`, the value of each pixel of `plane` whose eight neighbours equal it:
 * networks ring a little beside edges, and flat alpha must not.
 */
export function* keepFlat(
  plane: RasterImage,
  upscaled: RasterImage["data"],
  scale: number,
  from = 0,
  to: number = plane.height,
): InParts<void> {
  const { width, height, data } = plane;
  for (let at = from * width; at < to * width; at++) {
    if (at % PIXELS_AT_ONCE === 0) yield;
    let flat = true;
    eachNeighbour(at, width, height, (neighbour) => {
      if (data[neighbour] !== data[at]) flat = false;
    });
    if (!flat) continue;
    const [x, y] = [at % width, Math.floor(at / width) - from];
    for (let row = y * scale; row < (y + 1) * scale; row++) {
      const first = (row * width + x) * scale;
      upscaled.fill(data[at], first, first + scale);
    }
  }
}
