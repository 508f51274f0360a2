/**
 * MambaQuant (ICLR 2025): rotations that even out the variances of channels, not only their maxima:
 * T = K H with K the eigenvectors of the covariance (KLT) and H Hadamard's. in_proj's input is turned
 * by K H (online, the affine part of its norm folded away); out_proj's is smoothed within its norm and
 * turned by H (online); dt_proj's three inputs are turned by K inside x_proj's rows (free) and coded
 * around their means. Weights of the module have a range per output channel. Its rotations of the
 * product of state and C concern operands that are float at scope table4 and are not made at scope
 * released either.
 */
import { symmetricEigen } from "../linalg/eigen.ts";
import { type Matrix, product, transposed } from "../linalg/matrix.ts";
import type { Network } from "../models/network.ts";
import { type InputMoments, inputMoments } from "../quant/covariance.ts";
import {
  foldNorm,
  inputsOf,
  rescaleNorm,
  setWeight,
  turnInputs,
  weightOf,
} from "../quant/folding.ts";
import { percentile, symmetricMax } from "../quant/ranges.ts";
import { hadamardOf, halfRounded, rotate } from "../quant/rotation.ts";
import type { Method } from "../train/method.ts";
import {
  DT_PROJ,
  IN_NORM,
  IN_PROJ,
  NORM,
  OUT_PROJ,
  prepareMamba,
  ROUTER,
  searchInside,
  smoothing,
  X_PROJ,
} from "./mamba_module.ts";
import { DQC } from "./two_d_quant.ts";

/** Share of a site's values that its observer clips on either side. */
const CLIPPED = 1e-3;

/** Mean and second moment. */
type Moments = Pick<InputMoments, "mean" | "second">;

/** Covariance of x around its mean. */
function covariance({ mean, second }: Moments): Matrix {
  const data = second.data.map(
    (value, i) => value - mean[Math.floor(i / mean.length)] * mean[i % mean.length],
  );
  return { ...second, data };
}

/** K H: under it every channel of x has the mean of the eigenvalues as its variance. */
export function kltHadamard(moments: Moments): Matrix {
  const { vectors } = symmetricEigen(covariance(moments));
  return product(vectors, hadamardOf(vectors.rows));
}

/** Turns delta's rank space by K: rows of x_proj that make it, columns of dt_proj that read it. */
function turnDelta(net: Network, prefix: string, moments: InputMoments): void {
  const { vectors } = symmetricEigen(covariance(moments));
  const rank = vectors.rows;
  const w = weightOf(net, prefix + X_PROJ);
  const rows = { rows: rank, cols: w.cols, data: w.data.slice(0, rank * w.cols) };
  w.data.set(product(transposed(vectors), rows).data);
  setWeight(net, prefix + X_PROJ, w);
  turnInputs(net, prefix + DT_PROJ, vectors);
}

export const MAMBAQUANT: Method = {
  name: "mambaquant",
  title: "MambaQuant (ICLR 2025): KLT-enhanced and smooth-fused rotations",
  architectures: ["mambairv2"],
  scope: "table4",
  recipe: DQC,
  recipeName: "2dquant",
  takesLeads: false,
  policy: (policy) => ({
    ...policy,
    rotations: { [IN_PROJ]: "stored", [OUT_PROJ]: "hadamard" },
    granularity: {
      [IN_PROJ]: { weight: "row" },
      [X_PROJ]: { weight: "row" },
      [DT_PROJ]: { weight: "row", input: "column" },
      [OUT_PROJ]: { weight: "row" },
    },
  }),
  prepare(context) {
    const { memory, teacher, policy, seed, calibration } = context;
    const moments = inputMoments(memory, teacher, policy, calibration(), seed);
    return prepareMamba(
      context,
      {
        fold: (net, prefix) => {
          foldNorm(net, prefix + IN_NORM, [prefix + IN_PROJ, prefix + ROUTER]);
          turnDelta(net, prefix, moments.get(prefix + DT_PROJ)!);
          const key = prefix + OUT_PROJ;
          const scales = smoothing(moments.get(key)!, weightOf(net, key));
          rescaleNorm(net, prefix + NORM, [key], scales);
        },
        turn: ({ net, sites }, prefix) => {
          // The moments are of the norm's output with its affine part, which the folding took away.
          const bare = withoutAffine(teacher, prefix + IN_NORM, moments.get(prefix + IN_PROJ)!);
          rotate(net, sites, prefix + IN_PROJ, halfRounded(kltHadamard(bare)));
          const key = prefix + OUT_PROJ;
          rotate(net, sites, key, hadamardOf(inputsOf(net, key)));
        },
      },
      searchInside((_, role) => (role === "weight" ? symmetricMax : percentile(CLIPPED))),
    );
  },
};

/** Moments of n where x = gain n + shift were measured. */
function withoutAffine(net: Network, norm: string, moments: Moments): Moments {
  const [gain, shift] = [net.get(`${norm}.weight`).data, net.get(`${norm}.bias`).data];
  const { mean } = moments;
  const n = mean.length;
  const inverse = Float64Array.from(gain, (value) => (Math.abs(value) > 1e-8 ? 1 / value : 0));
  const bare = mean.map((value, c) => (value - shift[c]) * inverse[c]);
  const centred = covariance(moments).data.map(
    (value, i) => value * inverse[Math.floor(i / n)] * inverse[i % n],
  );
  const data = centred.map((value, i) => value + bare[Math.floor(i / n)] * bare[i % n]);
  return { mean: bare, second: { rows: n, cols: n, data } };
}
