/**
 * MambaIRv2-light (window attention and an attentive state-space module in every layer), written
 * once for training, inference and tracing. Where a tensor may be quantised, the forward pass asks
 * `sites`: FloatSites (lib/models/sites.ts) computes in float, lib/quant/sites.ts on codes.
 */
import type { Graph, Var } from "../autograd.ts";
import { addPrompt, type Routed, type Router, sortTokens } from "../nn/routing.ts";
import * as ops from "../ops.ts";
import { attend, attentionSites, layerModules, type LayerModules, macItem } from "./blocks.ts";
import {
  inferConfig,
  layerPrefix,
  lightConfig,
  type MambaConfig,
  parameterSpecs,
} from "./mambairv2_parameters.ts";
import { type Architecture, codedModule, type LayerPlace, type MacItem } from "./architecture.ts";
import type { Network } from "./network.ts";
import type { Sites } from "./sites.ts";

const values = { kind: "values" } as const;
const rectified = { rectified: true } as const;
const SCAN = "assm.selectiveScan";

/** The family. Its checkpoints hold one buffer, the index of the relative positions. */
export const MAMBAIRV2: Architecture<MambaConfig> = {
  name: "mambairv2",
  title: "MambaIRv2-light",
  padding: "symmetric",
  routes: true,
  modules: [
    codedModule("wqkv.q", "wqkv.q.weight", rectified),
    codedModule("wqkv.k", "wqkv.k.weight", rectified),
    codedModule("wqkv.v", "wqkv.v.weight", rectified),
    codedModule("win_mhsa.proj", undefined, rectified),
    codedModule("convffn1.fc1", undefined, rectified),
    codedModule("convffn1.sg.conv", undefined, { kind: "depthwise" }),
    codedModule("convffn1.fc2", undefined, rectified),
    codedModule("assm.route.0", undefined, rectified),
    codedModule("assm.route.2", undefined, rectified),
    codedModule("assm.in_proj.0"),
    codedModule("assm.CPE.0", undefined, { kind: "depthwise", offsets: false, releasedOnly: true }),
    codedModule("assm.embeddingB", undefined, values),
    codedModule("embeddingA", undefined, values),
    codedModule(`${SCAN}.x_proj_weight`, `${SCAN}.x_proj_weight`),
    codedModule(`${SCAN}.dt_projs_weight`, `${SCAN}.dt_projs_weight`),
    codedModule("assm.out_proj", undefined, rectified),
    codedModule("convffn2.fc1", undefined, rectified),
    codedModule("convffn2.sg.conv", undefined, { kind: "depthwise" }),
    codedModule("convffn2.fc2", undefined, rectified),
  ],
  extraSites: [
    ...attentionSites("win_mhsa"),
    { name: "assm.pool.x", joint: false, when: "always" },
    { name: `${SCAN}.delta`, joint: false, when: "released" },
    { name: `${SCAN}.A`, joint: false, when: "released" },
    { name: `${SCAN}.B`, joint: false, when: "released" },
    { name: `${SCAN}.C`, joint: false, when: "released" },
    { name: `${SCAN}.bias`, joint: false, when: "released" },
    { name: `${SCAN}.h`, joint: true, when: "released" },
  ],
  lightConfig,
  configProblem: ({ channels, heads, hidden, window }) =>
    channels % heads !== 0 || hidden % 2 !== 0 || window % 2 !== 0
      ? "channels divisible by heads, even hidden and window"
      : null,
  describe: ({ hidden, states }) => `hidden ${hidden}, ${states} states`,
  recognises: (tensors) => tensors.has(`${layerPrefix(0, 0)}${SCAN}.A_logs`),
  inferConfig,
  isBuffer: (key) => key === "relative_position_index_SA",
  parameterSpecs,
  layerPrefix,
  layer: attentiveLayer,
  macs,
  mirroredSide: (length) => length,
};

/** MACs by the rules that reproduce Table 4 of SPR2Q (lib/quant/accounts.ts). */
function macs(config: MambaConfig): MacItem[] {
  const { channels: C, hidden: E, states: S, deltaRank, classes, routerHidden: R } = config;
  const layers = config.depths.reduce((a, b) => a + b, 0);
  return [
    macItem("conv_first", 1, 27 * C, "float"),
    macItem("wqkv", layers, 3 * C * C),
    macItem("q k^T", layers, config.window ** 2 * C),
    macItem("probabilities v", layers, config.window ** 2 * C, "probabilities"),
    macItem("win_mhsa.proj", layers, C * C),
    macItem("convffn.fc1", 2 * layers, C * E),
    macItem("convffn depth-wise 5x5", 2 * layers, 25 * (E / 2)),
    macItem("convffn.fc2", 2 * layers, (E / 2) * C),
    macItem("router", layers, C * R + R * classes),
    // Once a layer, however many tokens.
    macItem("prompt pool", layers, classes * config.promptRank * S, "codes", true),
    macItem("prompt choice", layers, classes * S),
    macItem("in_proj", layers, C * E),
    macItem("CPE depth-wise 3x3", layers, 9 * E, "released-codes"),
    macItem("x_proj", layers, E * (deltaRank + 2 * S)),
    macItem("dt_proj", layers, deltaRank * E),
    // Table 4 counts the scan as float wherever its operands are quantised: the recurrence is float.
    macItem("scan", layers, 9 * E * S + E, "float"),
    macItem("out_proj", layers, E * C),
    macItem("group convolutions", config.depths.length, 9 * C * C, "float"),
    macItem("conv_after_body", 1, 9 * C * C, "float"),
    macItem("upsample", 1, 9 * C * 3 * config.scale ** 2, "float"),
    macItem("LayerNorm in layers", layers, 5 * (4 * C + 2 * E), "float"),
    macItem("LayerNorm outside", 2, 5 * C, "float"),
  ];
}

/** One AttentiveLayer: window attention and gated MLP, then the state-space module and another. */
function attentiveLayer(
  g: Graph,
  net: Network<MambaConfig>,
  place: LayerPlace,
  x: Var,
  sites: Sites,
  router: Router,
): Var {
  const modules = layerModules(g, net, place.prefix, sites);
  const { weights, norm } = modules;

  const first = g.scope(() => {
    const attended = g.scope(() => {
      const mixed = attend(g, place, modules, norm("norm1", x), "wqkv", "win_mhsa", sites);
      return ops.add(g, mixed, x);
    });
    const mlp = g.scope(() =>
      gatedMlp(g, place, modules, "convffn1", norm("norm2", attended), sites),
    );
    return ops.scaleAdd(g, x, weights("scale1"), ops.add(g, mlp, attended));
  });
  const second = g.scope(() => {
    const n = norm("norm3", first);
    return ops.add(g, stateSpace(g, net, place, modules, n, sites, router), first);
  });
  const mlp = g.scope(() => gatedMlp(g, place, modules, "convffn2", norm("norm4", second), sites));
  return ops.scaleAdd(g, first, weights("scale2"), ops.add(g, mlp, second));
}

/** fc1, GELU, then the first half gated by a depth-wise convolution of the normed second half. */
function gatedMlp(
  g: Graph,
  place: LayerPlace,
  { weights, norm, linear }: LayerModules,
  name: string,
  z: Var,
  sites: Sites,
): Var {
  const u = ops.gelu(g, linear(`${name}.fc1`, z));
  const half = u.shape[1] / 2;
  const normed = norm(`${name}.sg.norm`, ops.sliceColumns(g, u, half, half));
  const gate = sites.depthwise(
    g,
    `${place.prefix}${name}.sg.conv`,
    normed,
    weights(`${name}.sg.conv.weight`),
    weights(`${name}.sg.conv.bias`),
    place,
  );
  return linear(`${name}.fc2`, ops.multiply(g, ops.sliceColumns(g, u, 0, half), gate));
}

/** The attentive state-space module: route, gate, sort, scan with prompts, project, unsort. */
function stateSpace(
  g: Graph,
  net: Network<MambaConfig>,
  place: LayerPlace,
  { weights, norm, linear }: LayerModules,
  z: Var,
  sites: Sites,
  router: Router,
): Var {
  const { prefix, index, batch } = place;
  const rows = z.size / z.shape[1];
  // Before the router, so that a plan takes a tile of z through both.
  const v = linear("assm.in_proj.0", z);
  const routed: Routed = router.route(g, index, batch, rows, () =>
    linear("assm.route.2", ops.gelu(g, linear("assm.route.0", z))),
  );
  const gate = sites.depthwise(
    g,
    `${prefix}assm.CPE.0`,
    v,
    weights("assm.CPE.0.weight"),
    weights("assm.CPE.0.bias"),
    place,
  );
  const pool = sites.promptPool(
    g,
    prefix,
    weights("assm.embeddingB.weight"),
    weights("embeddingA.weight"),
  );
  const order = sortTokens(g, routed.classes, batch, net.config.classes);
  const u = ops.gatherRows(g, ops.sigmoidGate(g, v, gate), order);
  // The prompt stays in raster order while u is sorted: the released weights need it.
  const y = sites.scan(g, prefix, u, weights, batch, (c) => addPrompt(g, c, pool, routed));
  return ops.scatterRows(g, linear("assm.out_proj", norm("assm.out_norm", y)), order);
}
