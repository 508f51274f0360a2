/**
 * SwinIR-light as an ONNX graph, written from a checkpoint's tensors alone: the whole-network peer
 * that ONNX Runtime runs. Reflect padding to whole windows, window partition and cyclic shift are
 * nodes of the graph; masks and position biases are constants. With ranges, every product of the
 * body is INT8 (lib/bench/qdq_onnx.ts).
 */
import { expected } from "../errors.ts";
import { type TensorMap, toFloat32 } from "../io/host_tensor.ts";
import { OnnxGraph } from "./onnx.ts";
import { convNode, linearNode, type Product, type Range } from "./qdq_onnx.ts";

const WINDOW = 8;
const SHIFT = 4;
const MASKED = -100;
const EPSILON = 1e-5;
const MEAN = Float32Array.of(0.4488, 0.4371, 0.404);

/** Ranges of the inputs of products by checkpoint key, as calibration found them. */
export type Ranges = ReadonlyMap<string, Range>;

/** What a model is written for. */
export interface SwinirOptions {
  readonly height: number;
  readonly width: number;
  /** INT8 with these ranges. */
  readonly ranges?: Ranges;
  /** Adds outputs KEY.min and KEY.max for the input of every product. */
  readonly observe?: boolean;
  /** Adds this block's output, for example "0.1", as the output "block". */
  readonly block?: string;
}

/** A written model. */
export interface SwinirModel {
  readonly bytes: Uint8Array;
  readonly scale: number;
  /** Keys of the products, in order. */
  readonly products: readonly string[];
}

/** True where the tensors are a SwinIR checkpoint with a single upsampling convolution. */
export function isSwinirLight(tensors: ReadonlyMap<string, unknown>): boolean {
  return (
    tensors.has("layers.0.residual_group.blocks.0.attn.qkv.weight") &&
    tensors.has("upsample.0.weight")
  );
}

/** Position bias (1, heads, 64, 64) from the table (225, heads). */
function expandBias(table: Float32Array, heads: number): Float32Array {
  const tokens = WINDOW * WINDOW;
  const bias = new Float32Array(heads * tokens * tokens);
  for (let q = 0; q < tokens; q++) {
    for (let k = 0; k < tokens; k++) {
      const dy = Math.floor(q / WINDOW) - Math.floor(k / WINDOW) + WINDOW - 1;
      const dx = (q % WINDOW) - (k % WINDOW) + WINDOW - 1;
      for (let h = 0; h < heads; h++) {
        bias[(h * tokens + q) * tokens + k] = table[(dy * (2 * WINDOW - 1) + dx) * heads + h];
      }
    }
  }
  return bias;
}

/** Mask (windows, 1, 64, 64) of the shifted blocks. */
function shiftMask(height: number, width: number): Float32Array {
  const label = (at: number, side: number): number =>
    at < side - WINDOW ? 0 : at < side - SHIFT ? 1 : 2;
  const tokens = WINDOW * WINDOW;
  const columns = width / WINDOW;
  const mask = new Float32Array(((height * width) / tokens) * tokens * tokens);
  const labelOf = (window: number, token: number): number => {
    const y = Math.floor(window / columns) * WINDOW + Math.floor(token / WINDOW);
    const x = (window % columns) * WINDOW + (token % WINDOW);
    return 3 * label(y, height) + label(x, width);
  };
  for (let w = 0; w < (height * width) / tokens; w++) {
    for (let q = 0; q < tokens; q++) {
      for (let k = 0; k < tokens; k++) {
        if (labelOf(w, q) !== labelOf(w, k)) mask[(w * tokens + q) * tokens + k] = MASKED;
      }
    }
  }
  return mask;
}

/** The graph while it is written: sizes, weights and the nodes that several parts share. */
class Writer {
  readonly g = new OnnxGraph();
  readonly products: string[] = [];
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly heads: number;
  readonly scale: number;
  readonly #tensors: TensorMap;
  readonly #options: SwinirOptions;
  readonly #mask: string;

  constructor(tensors: TensorMap, options: SwinirOptions) {
    this.#tensors = tensors;
    this.#options = options;
    this.height = Math.ceil(options.height / WINDOW) * WINDOW;
    this.width = Math.ceil(options.width / WINDOW) * WINDOW;
    this.channels = this.shape("conv_first.weight")[0];
    const table = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table";
    this.heads = this.shape(table)[1];
    this.scale = Math.sqrt(this.shape("upsample.0.weight")[0] / 3);
    const tokens = WINDOW * WINDOW;
    const windows = (this.height * this.width) / tokens;
    const mask = shiftMask(this.height, this.width);
    this.#mask = this.g.constant(mask, [windows, 1, tokens, tokens]);
  }

  shape(name: string): readonly number[] {
    const found = this.#tensors.get(name);
    if (!found) throw expected("ERR_CHECKPOINT", "SwinIR-light checkpoint", `"${name}"`, "none");
    return found.shape;
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  data(name: string): Float32Array {
    this.shape(name);
    return toFloat32(this.#tensors.get(name)!);
  }

  reshape(x: string, shape: readonly number[]): string {
    return this.g.node("Reshape", [x, this.g.constant(shape)]);
  }

  transpose(x: string, perm: readonly number[]): string {
    return this.g.node("Transpose", [x], { perm });
  }

  norm(name: string, x: string): string {
    const operands = ["weight", "bias"].map((part) =>
      this.g.constant(this.data(`${name}.${part}`)),
    );
    return this.g.node("LayerNormalization", [x, ...operands], {
      axis: -1,
      epsilon: { float: EPSILON },
    });
  }

  /** x (rows, in) or (1, in, h, w) through the product `name`; some products stay float. */
  product(name: string, x: string, quantised: boolean, given?: Product): string {
    const weight = given ?? {
      weight: this.data(`${name}.weight`),
      bias: this.data(`${name}.bias`),
      shape: this.shape(`${name}.weight`),
    };
    if (quantised) {
      this.products.push(name);
      if (this.#options.observe) this.#observe(name, x);
    }
    const range = quantised ? (this.#options.ranges?.get(name) ?? null) : null;
    return (weight.shape.length === 4 ? convNode : linearNode)(this.g, x, weight, range);
  }

  #observe(name: string, x: string): void {
    this.g.output(`${name}.min`, this.g.node("ReduceMin", [x], { keepdims: 0 }), []);
    this.g.output(`${name}.max`, this.g.node("ReduceMax", [x], { keepdims: 0 }), []);
  }

  /** Rows of tokens to an image (1, C, H, W) and back. */
  image(tokens: string): string {
    const grid = this.reshape(tokens, [1, this.height, this.width, this.channels]);
    return this.transpose(grid, [0, 3, 1, 2]);
  }

  tokens(image: string): string {
    return this.reshape(this.transpose(image, [0, 2, 3, 1]), [-1, this.channels]);
  }

  /** Cyclic shift of an image (H, W, C) by -`by` rows and columns, as two slices joined. */
  roll(x: string, by: number): string {
    let rolled = x;
    for (const axis of [0, 1]) {
      const side = axis === 0 ? this.height : this.width;
      const cut = (by + side) % side;
      const slice = (from: number, to: number): string =>
        this.g.node("Slice", [rolled, ...[from, to, axis].map((n) => this.g.constant([n]))]);
      rolled = this.g.node("Concat", [slice(cut, side), slice(0, cut)], { axis });
    }
    return rolled;
  }

  /** Rows of tokens to rows of windows (shifted where asked), and back. */
  partition(tokens: string, shifted: boolean): string {
    let x = this.reshape(tokens, [this.height, this.width, this.channels]);
    if (shifted) x = this.roll(x, SHIFT);
    const [down, across] = [this.height / WINDOW, this.width / WINDOW];
    x = this.reshape(x, [down, WINDOW, across, WINDOW, this.channels]);
    return this.reshape(this.transpose(x, [0, 2, 1, 3, 4]), [-1, this.channels]);
  }

  join(windows: string, shifted: boolean): string {
    const [down, across] = [this.height / WINDOW, this.width / WINDOW];
    let x = this.reshape(windows, [down, across, WINDOW, WINDOW, this.channels]);
    x = this.reshape(this.transpose(x, [0, 2, 1, 3, 4]), [this.height, this.width, this.channels]);
    if (shifted) x = this.roll(x, -SHIFT);
    return this.reshape(x, [-1, this.channels]);
  }

  /** qkv, attention and projection of rows of windows. The query's scale is in its weights. */
  attention(name: string, windows: string, shifted: boolean): string {
    const { g, channels, heads } = this;
    const headDim = channels / heads;
    const joint = this.product(
      `${name}.qkv`,
      windows,
      true,
      this.#scaledQkv(`${name}.qkv`, headDim),
    );
    const tokens = WINDOW * WINDOW;
    const parts = g.nodes(
      "Split",
      [this.reshape(joint, [-1, tokens, 3 * channels]), g.constant([channels, channels, channels])],
      { axis: 2 },
      3,
    );
    const [q, k, v] = parts.map((part, i) =>
      this.transpose(
        this.reshape(part, [-1, tokens, heads, headDim]),
        i === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3],
      ),
    );
    const table = this.data(`${name}.relative_position_bias_table`);
    const bias = g.constant(expandBias(table, heads), [1, heads, tokens, tokens]);
    let logits = g.node("Add", [g.node("MatMul", [q, k]), bias]);
    if (shifted) logits = g.node("Add", [logits, this.#mask]);
    const mixed = g.node("MatMul", [g.node("Softmax", [logits], { axis: -1 }), v]);
    const rows = this.reshape(this.transpose(mixed, [0, 2, 1, 3]), [-1, channels]);
    return this.product(`${name}.proj`, rows, true);
  }

  #scaledQkv(name: string, headDim: number): Product {
    const scale = headDim ** -0.5;
    const scaled = (part: string): Float32Array => {
      const data = Float32Array.from(this.data(`${name}.${part}`));
      for (let i = 0; i < data.length / 3; i++) data[i] *= scale;
      return data;
    };
    const shape = this.shape(`${name}.weight`);
    return { weight: scaled("weight"), bias: scaled("bias"), shape };
  }

  block(name: string, x: string, shifted: boolean): string {
    const { g } = this;
    const windows = this.partition(this.norm(`${name}.norm1`, x), shifted);
    const mixed = this.join(this.attention(`${name}.attn`, windows, shifted), shifted);
    const attended = g.node("Add", [x, mixed]);
    const wide = this.product(`${name}.mlp.fc1`, this.norm(`${name}.norm2`, attended), true);
    const narrow = this.product(`${name}.mlp.fc2`, g.node("Gelu", [wide]), true);
    return g.node("Add", [attended, narrow]);
  }
}

/** Writes the model; errors name the tensor that a checkpoint lacks. */
export function swinirModel(tensors: TensorMap, options: SwinirOptions): SwinirModel {
  const w = new Writer(tensors, options);
  const { g, height, width, scale } = w;
  const { height: h, width: wide } = options;
  const input = g.input("input", [1, 3, h, wide]);
  const pads = g.constant([0, 0, 0, 0, 0, 0, height - h, width - wide]);
  const padded = g.node("Pad", [input, pads], { mode: "reflect" });
  const mean = g.constant(MEAN, [1, 3, 1, 1]);
  const first = w.product("conv_first", g.node("Sub", [padded, mean]), false);
  let x = w.norm("patch_embed.norm", w.tokens(first));
  for (let group = 0; w.has(`layers.${group}.conv.weight`); group++) {
    const entering = x;
    const prefix = `layers.${group}.residual_group.blocks`;
    for (let block = 0; w.has(`${prefix}.${block}.norm1.weight`); block++) {
      x = w.block(`${prefix}.${block}`, x, block % 2 === 1);
      if (options.block === `${group}.${block}`) g.output("block", x);
    }
    x = g.node("Add", [w.tokens(w.product(`layers.${group}.conv`, w.image(x), true)), entering]);
  }
  const body = w.product("conv_after_body", w.image(w.norm("norm", x)), true);
  const up = w.product("upsample.0", g.node("Add", [body, first]), true);
  const shuffled = g.node("DepthToSpace", [up], { blocksize: scale, mode: "CRD" });
  const ends = [h * scale, wide * scale];
  const cut = g.node("Slice", [
    g.node("Add", [shuffled, mean]),
    g.constant([0, 0]),
    g.constant(ends),
    g.constant([2, 3]),
  ]);
  g.output("output", cut, [1, 3, ...ends]);
  return { bytes: g.bytes(), scale, products: w.products };
}
