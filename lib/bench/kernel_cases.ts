/** The hot kernels at the shapes that the two networks give them for 180x320 pixels. */
import { type F32, native } from "../binding.ts";
import { packCodes } from "../quant/bitpack.ts";
import { emptyFloats, randomCodes, randomFloats } from "./data.ts";
import type { Goal } from "./rows.ts";

/** Padded pixels of MambaIRv2-light (windows of 16) and SwinIR-light (windows of 8). */
export const MAMBA_TOKENS = 61_440;
export const SWIN_TOKENS = 58_880;

/** One kernel that can be called again and again. */
export interface KernelCase {
  readonly name: string;
  readonly call: () => void;
  readonly goal?: Goal;
  readonly note?: string;
}

/** Heads, window and image of an attention. */
export interface AttentionShape {
  readonly name: string;
  readonly height: number;
  readonly width: number;
  readonly heads: number;
  readonly headDim: number;
  readonly window: number;
}

/** Both networks' attentions: 240 windows of 256 tokens, 920 windows of 64. */
export const ATTENTIONS: readonly AttentionShape[] = [
  {
    name: "240 windows x 4 x 256 x 12",
    height: 192,
    width: 320,
    heads: 4,
    headDim: 12,
    window: 16,
  },
  { name: "920 windows x 6 x 64 x 10", height: 184, width: 320, heads: 6, headDim: 10, window: 8 },
];

/** Calls of one attention, in float and on codes of `bits` with half-exponent probabilities. */
export function attentionCalls(
  { height, width, heads, headDim, window }: AttentionShape,
  bits: number,
): { readonly float: () => void; readonly coded: () => void; readonly table: F32 } {
  const size = height * width * heads * headDim;
  const [q, k, v] = [1, 2, 3].map((seed) => randomFloats(size, seed, headDim ** -0.25));
  const [qc, kc, vc] = [4, 5, 6].map((seed) => randomCodes(size, bits, seed));
  const table = randomFloats((2 * window - 1) ** 2 * heads, 7, 0.3);
  const grid = Float32Array.of(-1, 1, -1, 1, -1, 1);
  const y = emptyFloats(size);
  const sides = [1, height, width, heads, headDim, window, 0] as const;
  const floats = [y, null, null, null] as const;
  const kinds = [2, bits, bits, bits, 0] as const;
  return {
    float: () => native().windowAttention(q, k, v, table, null, y, null, ...sides, 0, 8),
    coded: () =>
      native().codedWindowAttention(qc, kc, vc, grid, table, null, ...floats, ...sides, ...kinds),
    table,
  };
}

/** Scan of one layer, forward and backward. */
export function scanCalls(
  length = MAMBA_TOKENS,
  channels = 48,
  states = 8,
): { readonly forward: () => void; readonly backward: () => void } {
  const narrow = (seed: number): F32 => randomFloats(length * states, seed);
  const wide = (seed: number): F32 => randomFloats(length * channels, seed);
  const [u, delta, gy] = [wide(1), wide(2), wide(3)];
  const [B, C] = [narrow(4), narrow(5)];
  const A = randomFloats(channels * states, 6).map((x) => -0.5 - Math.abs(x)) as F32;
  const [D, deltaBias] = [randomFloats(channels, 7), randomFloats(channels, 8).fill(-4)];
  const y = emptyFloats(u.length);
  const gradients = [u, delta, A, B, C, D, deltaBias].map((x) => emptyFloats(x.length));
  const [gu, gdelta, gA, gB, gC, gD, gbias] = gradients;
  const sides = [1, length, channels, states, 8] as const;
  return {
    forward: () => native().selectiveScan(u, delta, A, B, C, D, deltaBias, null, y, null, ...sides),
    backward: () =>
      native().selectiveScanGrad(
        u,
        delta,
        A,
        B,
        C,
        D,
        deltaBias,
        null,
        gy,
        gu,
        gdelta,
        gA,
        gB,
        gC,
        gD,
        gbias,
        null,
        ...sides,
      ),
  };
}

function linearCase(rows: number, inputs: number, outputs: number): KernelCase {
  const [x, weight] = [randomFloats(rows * inputs, 1), randomFloats(outputs * inputs, 2, 0.2)];
  const [bias, y] = [randomFloats(outputs, 3), emptyFloats(rows * outputs)];
  const call = () => native().linear(x, weight, bias, y, rows, inputs, outputs);
  return { name: `linear ${rows} x ${inputs}-${outputs}`, call };
}

function codedLinearCase(rows: number, inputs: number, outputs: number, bits: number): KernelCase {
  const x = randomCodes(rows * inputs, bits, 1);
  const codes = randomCodes(outputs * inputs, bits, 2);
  const weight = packCodes(codes, outputs, inputs, bits);
  const lower = randomFloats(inputs, 3);
  const range = Float32Array.of(6);
  const low = randomFloats(outputs, 4).fill(-0.3);
  const high = randomFloats(outputs, 4).fill(0.3);
  const [bias, y] = [randomFloats(outputs, 5), emptyFloats(rows * outputs)];
  const sides = [rows, inputs, outputs, bits, bits, 2, 1, bits] as const;
  const call = () => native().codedLinear(x, weight, lower, range, low, high, bias, y, ...sides);
  return { name: `coded linear ${rows} x ${inputs}-${outputs}, ${bits} bit`, call };
}

function elementCases(rows: number, channels: number): KernelCase[] {
  const size = rows * channels;
  const [x, y] = [randomFloats(size, 1), emptyFloats(size)];
  const codes = randomCodes(size, 4, 1);
  const [weight, bias] = [randomFloats(channels, 2), randomFloats(channels, 3)];
  const [lower, range] = [randomFloats(channels, 4), Float32Array.of(3)];
  const quantiser = [rows, channels, 2, 4] as const;
  const shape = `${rows} x ${channels}`;
  return [
    {
      name: `quantize ${shape}`,
      call: () => native().quantize(x, lower, range, codes, ...quantiser),
    },
    { name: `qdq ${shape}`, call: () => native().qdq(x, lower, range, y, ...quantiser) },
    {
      name: `LayerNorm ${shape}`,
      call: () => native().layerNorm(x, weight, bias, y, rows, channels),
    },
    { name: `GELU ${shape}`, call: () => native().gelu(x, y, size) },
  ];
}

function convCases(height: number, width: number): KernelCase[] {
  const tokens = height * width;
  const [x, y] = [randomFloats(tokens * 48, 1), emptyFloats(tokens * 48)];
  const [weight, deep] = [randomFloats(48 * 48 * 9, 2, 0.05), randomFloats(24 * 25, 3, 0.2)];
  const bias = randomFloats(48, 4);
  return [
    {
      name: `conv 3x3 ${tokens} x 48-48`,
      call: () => native().conv2d(x, weight, bias, y, 1, height, width, 48, 48, 3),
    },
    {
      name: `depth-wise 5x5 ${tokens} x 24`,
      call: () => native().depthwiseConv(x, deep, bias, y, 1, height, width, 24, 5),
    },
  ];
}

/** What the specification of the project asks of the scan. */
const SCAN_GOAL: Goal = { floor: 8, stretch: 11 };

/** Cases that are timed on the fast backend and on the scalar reference. */
export function referenceCases(): KernelCase[] {
  const [mamba, swin] = ATTENTIONS.map((shape) => attentionCalls(shape, 4));
  return [
    {
      name: `selective scan ${MAMBA_TOKENS} x 48 x 8, forward`,
      call: scanCalls().forward,
      goal: SCAN_GOAL,
      note: "the reference keeps its state in double precision, one channel at a time",
    },
    linearCase(MAMBA_TOKENS, 48, 48),
    linearCase(MAMBA_TOKENS, 48, 144),
    linearCase(SWIN_TOKENS, 60, 120),
    codedLinearCase(MAMBA_TOKENS, 48, 48, 4),
    codedLinearCase(MAMBA_TOKENS, 48, 144, 4),
    codedLinearCase(SWIN_TOKENS, 60, 120, 4),
    { name: `attention ${ATTENTIONS[0].name}, float`, call: mamba.float },
    { name: `attention ${ATTENTIONS[0].name}, 4 bit`, call: mamba.coded },
    { name: `attention ${ATTENTIONS[1].name}, float`, call: swin.float },
    { name: `attention ${ATTENTIONS[1].name}, 4 bit`, call: swin.coded },
    ...elementCases(MAMBA_TOKENS, 48),
    ...convCases(192, 320),
  ];
}
