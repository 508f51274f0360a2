/**
 * The quantised network: every site of the policy computes on codes. One class serves calibration
 * (values are observed and pass through untouched), training, and the frozen packed model, whose
 * weights come as codes. Sites are named KEY.x (input), KEY.w (weight), KEY.q/k/v/p (attention),
 * and KEY.u/delta/bias/A/B/C/h (scan).
 */
import { type Graph, Var } from "../autograd.ts";
import type { I32 } from "../binding.ts";
import { expected } from "../errors.ts";
import type { Architecture, CodedModule } from "../models/architecture.ts";
import type { LayerWeights, Network } from "../models/network.ts";
import { asMatrix, FloatSites, scanSizes, type Sites } from "../models/sites.ts";
import type { ProbabilityCodes, WindowShape } from "../nn/attention.ts";
import { codedWindowAttention, sampleProbabilities } from "./coded_attention.ts";
import type { Observer, SiteKind, Tap } from "./observation.ts";
import { selectiveScan } from "../nn/selective_scan.ts";
import * as ops from "../ops.ts";
import {
  type Bounds,
  type Codes,
  codedDepthwiseConv,
  codedLinear,
  dequantize,
  qdq,
  quantize,
} from "./codes.ts";
import { codedWeights, mergedWeight } from "./coded_weights.ts";
import type { DynamicGate } from "./gate.ts";
import {
  inputGranularity,
  inScope,
  type Policy,
  quantisesScan,
  weightGranularity,
} from "./policy.ts";
import { type TokenGrid, tokenCodes, tokenPlaces } from "./token_ranges.ts";
import { relu } from "./relu.ts";
import type { Increment, RectifierGroup } from "./rectifier.ts";

export type { Observer, SiteKind, Tap } from "./observation.ts";

const SCAN = "assm.selectiveScan";

/** A module's name below its layer's prefix. */
const moduleName = (key: string): string =>
  key.replace(/^layers\.\d+\.residual_group\.\w+\.\d+\./, "");

export class QuantisedSites implements Sites {
  readonly policy: Policy;
  readonly bounds: Map<string, Bounds> = new Map();
  readonly rectifiers: Map<string, RectifierGroup> = new Map();
  /** Weight codes of a frozen model, by module key. */
  readonly frozen: Map<string, Codes> = new Map();
  /** Input-dependent gates (recipe `paper`), by module key; empty once OSRC has made them static. */
  readonly gates: Map<string, DynamicGate> = new Map();
  /** Transposed rotations T^T (in, in) of inputs, by module key: the module sees x T. */
  readonly rotations: Map<string, Var> = new Map();
  /** Increments of whole weights (the control "direct tuning"), by module key. */
  readonly increments: Map<string, Increment> = new Map();
  /** Samples in the batch that flows now: a dynamic gate looks at each by itself. */
  samples = 1;
  /** Called with the gates that a dynamic gate chose. */
  gateTap: ((key: string, gates: Float32Array) => void) | null = null;
  observer: Observer | null = null;
  tap: Tap | null = null;
  /** Weights that are not coded yet while they are fitted (AdaRound), by module key. */
  readonly soft: Map<string, (g: Graph, weight: Var) => Var> = new Map();
  #grid: TokenGrid | null = null;
  /** Coded weights by module key, of the passes that have them all at once. */
  readonly #coded = new WeakMap<Graph, ReadonlyMap<string, Codes>>();
  readonly #float = new FloatSites();
  /** Coded modules of a layer by their names inside it. */
  readonly #modules: ReadonlyMap<string, CodedModule>;
  /** Codes of a value that several modules share (q, k, v), within one pass. */
  #shared = new WeakMap<Var, Map<Bounds, Codes>>();

  constructor(policy: Policy, architecture: Architecture) {
    this.policy = policy;
    this.#modules = new Map(architecture.modules.map((module) => [module.name, module]));
  }

  begin(grid: ops.Grid, window: number): void {
    this.#grid = { ...grid, window };
  }

  /** A pass that is differentiated has the weights of all layers coded in one call. */
  prepare(g: Graph, net: Network): void {
    if (g.mode === "recording" && !this.observer) this.#coded.set(g, codedWeights(g, net, this));
  }

  /** Name of the site that quantises a module's input; q, k and v share theirs with offsets on. */
  inputSite(key: string): string {
    const joint = this.policy.leads.channelOffsets ? key.replace(/qkv\.[qkv]$/, "qkv") : key;
    return `${joint}.x`;
  }

  linear(g: Graph, key: string, input: Var, weight: Var, bias: Var | null): Var {
    const rotation = this.rotations.get(key);
    const x = rotation ? ops.linear(g, input, rotation, null) : input;
    if (this.observer) {
      this.#observe(key, x, weight);
      return this.#float.linear(g, key, x, weight, bias);
    }
    const codes = this.#input(g, key, x);
    const soft = this.soft.get(key)?.(g, weight);
    const coded = soft ?? this.#weight(g, key, weight, x);
    // Rows with scales of their own, and weights that are no codes yet: the product of the values.
    if (soft || codes.bounds.granularity === "row")
      return ops.linear(g, dequantize(g, codes), soft ?? dequantize(g, coded as Codes), bias);
    return codedLinear(g, codes, coded as Codes, bias);
  }

  /** With a quantiser that begins at 0 behind it, a ReLU is what its clipping does. */
  activation(g: Graph, _key: string, x: Var): Var | null {
    if (this.policy.activation !== "relu") return null;
    return this.observer ? relu(g, x) : x;
  }

  depthwise(g: Graph, key: string, x: Var, weight: Var, bias: Var, grid: ops.Grid): Var {
    const coded = inScope(this.policy, this.#module(key));
    if (coded && this.observer) this.#observe(key, x, weight);
    if (!coded || this.observer) return this.#float.depthwise(g, key, x, weight, bias, grid);
    return codedDepthwiseConv(g, this.#input(g, key, x), this.#weight(g, key, weight), bias, grid);
  }

  attention(
    g: Graph,
    key: string,
    qkv: readonly [Var, Var, Var],
    table: Var,
    shape: WindowShape,
  ): Var {
    const letters = ["q", "k", "v"];
    if (this.observer) {
      letters.forEach((letter, i) => {
        this.observer?.(`${key}.${letter}`, qkv[i], { granularity: "tensor", role: "activation" });
      });
      if (!this.policy.leads.halfExponent) {
        const held = sampleProbabilities(g, qkv, table, shape);
        this.observer(`${key}.p`, held, { granularity: "tensor", role: "probability" });
      }
      return this.#float.attention(g, key, qkv, table, shape);
    }
    const codes = letters.map((letter, i) => this.#codes(g, `${key}.${letter}`, qkv[i]));
    const ends = codes.flatMap(({ bounds }) => [bounds.lower.data, bounds.upper.data]);
    return codedWindowAttention(
      g,
      codes as [Codes, Codes, Codes],
      g.joined(ends),
      table,
      shape,
      this.#probabilities(key),
    );
  }

  promptPool(g: Graph, prefix: string, embeddingB: Var, embeddingA: Var): Var {
    const value = (name: string, x: Var): Var => {
      const frozen = this.frozen.get(prefix + name);
      return frozen ? dequantize(g, frozen) : this.#value(g, `${prefix}${name}.w`, x, "weight");
    };
    const pool = this.#float.promptPool(
      g,
      prefix,
      value("assm.embeddingB", embeddingB),
      value("embeddingA", embeddingA),
    );
    return this.#value(g, `${prefix}assm.pool.x`, pool);
  }

  scan(
    g: Graph,
    prefix: string,
    u: Var,
    weights: LayerWeights,
    batch: number,
    prompt: (c: Var) => Var,
  ): Var {
    const key = `${prefix}${SCAN}`;
    const all = quantisesScan(this.policy);
    const { rank, states } = scanSizes(weights);
    const project = (name: string, x: Var): Var =>
      this.linear(g, `${key}.${name}`, x, asMatrix(weights(`${SCAN}.${name}`)), null);
    const operand = (name: string, x: Var): Var => (all ? this.#value(g, `${key}.${name}`, x) : x);

    const A = operand("A", ops.negativeExp(g, weights(`${SCAN}.A_logs`)));
    const deltaBias = operand("bias", asMatrix(weights(`${SCAN}.dt_projs_bias`)));
    // From here on each token by itself, so that a plan takes a tile of u through all of it.
    const scanned =
      all && !this.observer ? dequantize(g, this.#input(g, `${key}.x_proj_weight`, u)) : u;
    const projected = project("x_proj_weight", u);
    const operands = {
      u: scanned,
      delta: operand("delta", project("dt_projs_weight", ops.sliceColumns(g, projected, 0, rank))),
      A,
      B: operand("B", ops.sliceColumns(g, projected, rank, states)),
      C: operand("C", prompt(ops.sliceColumns(g, projected, rank + states, states))),
      D: weights(`${SCAN}.Ds`),
      deltaBias,
    };
    if (this.observer && all) {
      const held = g.floats(u.size * states);
      const y = selectiveScan(g, operands, batch, null, held);
      this.observer(`${key}.h`, new Var(held, [held.length]), {
        granularity: "tensor",
        role: "state",
      });
      return y;
    }
    const h = all ? this.#need(`${key}.h`) : null;
    return selectiveScan(g, operands, batch, h && { bounds: h.lower, bits: h.bits });
  }

  /** Kind of quantiser of a module's input. */
  inputKind(key: string): SiteKind {
    const granularity = inputGranularity(this.policy, this.#module(key));
    const places = this.#places(key);
    return { granularity, role: "activation", ...(places ? { places } : {}) };
  }

  /** Kind of quantiser of a module's weight. */
  weightKind(key: string): SiteKind {
    return { granularity: weightGranularity(this.policy, this.#module(key)), role: "weight" };
  }

  /** Places of the pass's tokens where the input of `key` has ranges by token, else null. */
  #places(key: string): I32 | null {
    const by = this.policy.tokenRanges?.[moduleName(key)];
    return by && this.#grid ? tokenPlaces(by, this.#grid) : null;
  }

  #module(key: string): CodedModule {
    const name = moduleName(key);
    const found = this.#modules.get(name);
    if (!found) throw expected("ERR_INTERNAL", `site ${key}`, "a listed module", `"${name}"`);
    return found;
  }

  #observe(key: string, x: Var, weight: Var): void {
    this.observer?.(this.inputSite(key), x, this.inputKind(key));
    this.observer?.(`${key}.w`, weight, this.weightKind(key));
  }

  #probabilities(key: string): ProbabilityCodes {
    if (this.policy.leads.halfExponent) return { kind: "half-exponent", bits: this.policy.bits };
    const { lower, bits } = this.#need(`${key}.p`);
    return { kind: "uniform", bits, bounds: lower };
  }

  /** A tensor that enters float arithmetic on its grid (scan operands, embeddings). */
  #value(g: Graph, site: string, x: Var, role: "activation" | "weight" = "activation"): Var {
    if (this.observer) {
      this.observer(site, x, { granularity: "tensor", role });
      return x;
    }
    return qdq(g, x, this.#need(site));
  }

  #input(g: Graph, key: string, x: Var): Codes {
    const bounds = this.#need(this.inputSite(key));
    let known = this.#shared.get(x);
    if (!known) {
      known = new Map();
      this.#shared.set(x, known);
    }
    let codes = known.get(bounds);
    if (!codes) {
      const places = this.#places(key);
      codes = places ? tokenCodes(g, x, bounds, places) : quantize(g, x, bounds);
      this.tap?.(this.inputSite(key), codes);
      known.set(bounds, codes);
    }
    return codes;
  }

  #weight(g: Graph, key: string, weight: Var, x?: Var): Codes {
    const frozen = this.frozen.get(key);
    if (frozen) return frozen;
    const codes =
      this.#coded.get(g.root)?.get(key) ??
      quantize(g, mergedWeight(g, this, key, weight, x), this.#need(`${key}.w`));
    this.tap?.(`${key}.w`, codes);
    return codes;
  }

  #codes(g: Graph, site: string, x: Var): Codes {
    const codes = quantize(g, x, this.#need(site));
    this.tap?.(site, codes);
    return codes;
  }

  #need(site: string): Bounds {
    const found = this.bounds.get(site);
    if (!found) throw expected("ERR_CHECKPOINT", "quantised model", `bounds for "${site}"`, "none");
    return found;
  }
}
