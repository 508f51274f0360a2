/** Calls of the fused ops (native/core/ops/fused.hpp) and of their parts, one after the other. */
import { type F32, native, type U8 } from "../binding.ts";
import { emptyFloats, randomCodes, randomFloats } from "./data.ts";

const HEIGHT = 192;
const WIDTH = 320;
const TOKENS = HEIGHT * WIDTH;
const BITS = 4;
const COLUMN = 2;

/** One fused op beside its parts. */
export interface FusedCase {
  readonly name: string;
  readonly whole: () => void;
  readonly parts: () => void;
}

/** A projection with what follows it in a layer: residual, norm, codes of the next one. */
function linearCase(): FusedCase {
  const sides = 48;
  const size = TOKENS * sides;
  const x = randomCodes(size, BITS, 1);
  const packed = new Uint8Array((2 * sides + 12) * sides);
  const [low, high] = [-0.3, 0.3].map((end) => new Float32Array(sides).fill(end));
  const bounds = [randomFloats(sides, 3), Float32Array.of(6), low, high] as const;
  const kinds = [sides, sides, BITS, BITS, COLUMN, 1, 8] as const;
  const weight = randomCodes(sides * sides, BITS, 2);
  native().packCodedLinear(weight, ...bounds, randomFloats(sides, 4), packed, ...kinds);
  const [added, y, v, normed] = [5, 6, 7, 8].map((seed) => randomFloats(size, seed));
  const [normWeight, normBias] = [randomFloats(sides, 9), randomFloats(sides, 10)];
  const [lower, upper] = [randomFloats(sides, 11), Float32Array.of(3)];
  const codes = randomCodes(size, BITS, 12);
  const none = [null, null, null] as const;
  return {
    name: `linear ${TOKENS} x ${sides}-${sides} + residual + norm + codes`,
    whole: () =>
      native().fusedCodedLinear(
        ...([x, packed, added, null, null, y, normWeight, normBias, lower, upper, codes] as const),
        ...([...none, TOKENS, sides, sides, BITS, BITS, 0, sides, 0, BITS, COLUMN] as const),
        ...([1, 0, 1, 1] as const),
      ),
    parts: () => {
      native().packedCodedLinear(x, packed, v, TOKENS, sides, sides, BITS, BITS);
      native().add(v, added, y, size);
      native().layerNorm(y, normWeight, normBias, normed, TOKENS, sides);
      native().quantize(normed, lower, upper, codes, TOKENS, sides, COLUMN, BITS);
    },
  };
}

/** The depth-wise convolution of a gated MLP, its product and the codes of that. */
function codedConvCase(): FusedCase {
  const channels = 24;
  const size = TOKENS * channels;
  const x = randomCodes(size, BITS, 1);
  const weight = randomCodes(channels * 25, BITS, 2);
  const [low, high] = [-0.3, 0.3].map((end) => new Float32Array(channels).fill(end));
  const bias = randomFloats(channels, 3);
  const given = [
    x,
    weight,
    randomFloats(channels, 4),
    Float32Array.of(6),
    low,
    high,
    bias,
  ] as const;
  const image = [1, HEIGHT, WIDTH, channels, 5] as const;
  const kinds = [BITS, BITS, COLUMN, 1, 8] as const;
  const [factor, y]: F32[] = [randomFloats(size, 5), emptyFloats(size)];
  const [lower, upper] = [randomFloats(channels, 6), Float32Array.of(3)];
  const codes: U8 = randomCodes(size, BITS, 7);
  return {
    name: `depth-wise 5x5 ${TOKENS} x ${channels} on codes, gate and codes`,
    whole: () =>
      native().fusedCodedDepthwiseConv(
        ...given,
        ...([factor, lower, upper, codes] as const),
        ...([...image, ...kinds, BITS, COLUMN] as const),
      ),
    parts: () => {
      native().codedDepthwiseConv(...given, y, ...image, ...kinds);
      native().multiply(y, factor, y, size);
      native().quantize(y, lower, upper, codes, TOKENS, channels, COLUMN, BITS);
    },
  };
}

/** The gate of the state-space module, made by a convolution of what it gates. */
function gatedConvCase(): FusedCase {
  const channels = 48;
  const size = TOKENS * channels;
  const [x, weight, bias] = [size, channels * 9, channels].map((n, i) => randomFloats(n, i + 1));
  const [y, gate] = [emptyFloats(size), emptyFloats(size)];
  const image = [1, HEIGHT, WIDTH, channels, 3] as const;
  return {
    name: `depth-wise 3x3 ${TOKENS} x ${channels} as a gate`,
    whole: () => native().gatedDepthwiseConv(x, weight, bias, y, ...image),
    parts: () => {
      native().depthwiseConv(x, weight, bias, gate, ...image);
      native().sigmoidGate(x, gate, y, size);
    },
  };
}

/** All of them. */
export const fusedCases = (): FusedCase[] => [linearCase(), codedConvCase(), gatedConvCase()];
