/**
 * Quamba (ICLR 2025): symmetric static ranges; the input u of the scan clipped at a high percentile
 * of its magnitudes; the inputs of in_proj and out_proj turned by Hadamard matrices (online; the
 * other half is folded into the weights, and the affine part of the norm before in_proj too). Its
 * GPTQ of weights (group 128) has no counterpart at 48 inputs and is left out.
 */
import { foldNorm, inputsOf } from "../quant/folding.ts";
import { symmetricMax, symmetricPercentile } from "../quant/ranges.ts";
import { hadamardOf, rotate } from "../quant/rotation.ts";
import type { Method } from "../train/method.ts";
import { IN_NORM, IN_PROJ, OUT_PROJ, prepareMamba, ROUTER, searchInside } from "./mamba_module.ts";
import { DQC } from "./two_d_quant.ts";

/** Share of the magnitudes of u and of the state that are kept. */
const KEPT = 0.9995;

export const QUAMBA: Method = {
  name: "quamba",
  title: "Quamba (ICLR 2025): symmetric ranges, clipped scan inputs, Hadamard rotations",
  architectures: ["mambairv2"],
  scope: "table4",
  recipe: DQC,
  recipeName: "2dquant",
  takesLeads: false,
  policy: (policy) => ({
    ...policy,
    rotations: { [IN_PROJ]: "hadamard", [OUT_PROJ]: "hadamard" },
  }),
  prepare: (context) =>
    prepareMamba(
      context,
      {
        fold: (net, prefix) => foldNorm(net, prefix + IN_NORM, [prefix + IN_PROJ, prefix + ROUTER]),
        turn: ({ net, sites }, prefix) => {
          for (const name of [IN_PROJ, OUT_PROJ])
            rotate(net, sites, prefix + name, hadamardOf(inputsOf(net, prefix + name)));
        },
      },
      searchInside((site) =>
        /x_proj_weight\.x$|\.h$/.test(site) ? symmetricPercentile(KEPT) : symmetricMax,
      ),
    ),
};
