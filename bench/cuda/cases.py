"""One or more cases for every op: arrays, calls, and what must come out. A case runs on any op
table; bench.py compares the CUDA library with the references of native/ops (double precision).
Tolerances: a number bounds max|difference| / max|reference|; EXACT asks for equal bytes; a pair
(tolerance, share) lets that share of the values leave the tolerance: codes that round the other
way where float32 and double fall on two sides of a tie."""

import numpy as np

EXACT = None
FLOAT = 1e-5
TENSOR, ROW, COLUMN = 0, 1, 2
PLAIN, UNIFORM, HALF = 0, 1, 2


class Case:
    """arrays: name -> numpy array (results too, as they are before); calls: (op, {field: value}),
    a value being the name of an array, None or a number; expect: name -> tolerance."""

    def __init__(self, name, arrays, calls, expect):
        self.name, self.arrays, self.calls, self.expect = name, arrays, calls, expect


class Maker:
    def __init__(self, seed):
        self.draw = np.random.default_rng(seed)

    def f(self, *shape, low=-1.0, high=1.0):
        return self.draw.uniform(low, high, shape).astype(np.float32).ravel()

    def codes(self, n, bits):
        return self.draw.integers(0, 2**bits, n).astype(np.uint8)

    @staticmethod
    def out(n, kind=np.float32):
        return np.full(n, 77, dtype=kind)


def simple(op, arrays, numbers, expect, fields=None):
    """A case of one call whose fields are named like its arrays."""
    names = {name: name for name in arrays} | (fields or {})
    return Case(op, arrays, [(op, names | numbers)], expect)


def products(m):
    rows, i, o = 1037, 48, 144
    x, w, b, gy = m.f(rows, i), m.f(o, i), m.f(o), m.f(rows, o)
    size = {"rows": rows, "in": i, "out": o}
    yield simple(
        "linear", {"x": x, "weight": w, "bias": b, "y": m.out(rows * o)}, size, {"y": FLOAT}
    )
    packed = np.zeros(4 * (i + 1) * o, np.uint8)
    yield Case(
        "pack_linear, packed_linear",
        {"x": x, "weight": w, "bias": b, "packed": packed, "y": m.out(rows * o)},
        [
            (
                "pack_linear",
                {"weight": "weight", "bias": "bias", "packed": "packed", "in": i, "out": o},
            ),
            ("packed_linear", {"x": "x", "packed": "packed", "y": "y", **size}),
        ],
        {"y": FLOAT},
    )
    yield simple(
        "linear_grad_input", {"gy": gy, "weight": w, "gx": m.out(rows * i)}, size, {"gx": FLOAT}
    )
    yield simple(
        "linear_grad_weight",
        {"gy": gy, "x": x, "gweight": m.out(o * i), "gbias": m.out(o)},
        size,
        {"gweight": FLOAT, "gbias": FLOAT},
    )
    yield simple(
        "transpose", {"x": x, "y": m.out(rows * i)}, {"rows": rows, "columns": i}, {"y": EXACT}
    )
    image = {"batch": 2, "height": 19, "width": 23}
    pixels = 2 * 19 * 23
    for kernel in (1, 3, 5):
        size = image | {"in": 12, "out": 20, "kernel": kernel}
        x, gy, w = m.f(pixels, 12), m.f(pixels, 20), m.f(20, 12, kernel, kernel)
        yield simple(
            "conv2d",
            {"x": x, "weight": w, "bias": m.f(20), "y": m.out(pixels * 20)},
            size,
            {"y": FLOAT},
        )
        yield simple(
            "conv2d_grad_input",
            {"gy": gy, "weight": w, "gx": m.out(pixels * 12)},
            size,
            {"gx": FLOAT},
        )
        yield simple(
            "conv2d_grad_weight",
            {"gy": gy, "x": x, "gweight": m.out(w.size), "gbias": m.out(20)},
            size,
            {"gweight": FLOAT, "gbias": FLOAT},
        )
    for kernel in (3, 5):
        size = image | {"channels": 24, "kernel": kernel}
        x, gy, w = m.f(pixels, 24), m.f(pixels, 24), m.f(24, kernel, kernel)
        yield simple(
            "depthwise_conv",
            {"x": x, "weight": w, "bias": m.f(24), "y": m.out(pixels * 24)},
            size,
            {"y": FLOAT},
        )
        yield simple(
            "gated_depthwise_conv",
            {"x": x, "weight": w, "bias": m.f(24), "y": m.out(pixels * 24)},
            size,
            {"y": FLOAT},
        )
        yield simple(
            "depthwise_conv_grad_input",
            {"gy": gy, "weight": w, "gx": m.out(pixels * 24)},
            size,
            {"gx": FLOAT},
        )
        yield simple(
            "depthwise_conv_grad_weight",
            {"gy": gy, "x": x, "gweight": m.out(w.size), "gbias": m.out(24)},
            size,
            {"gweight": FLOAT, "gbias": FLOAT},
        )
        operands = {
            "x": m.codes(pixels * 24, 4),
            "weight": m.codes(24 * ((kernel * kernel + 1) // 2), 8),
            "x_lower": m.f(24, low=-1, high=-0.5),
            "x_upper": m.f(1, low=1, high=2),
            "weight_lower": m.f(24, low=-0.5, high=-0.1),
            "weight_upper": m.f(24, low=0.1, high=0.5),
            "bias": m.f(24),
        }
        kinds = {
            "x_bits": 4,
            "weight_bits": 4,
            "x_granularity": COLUMN,
            "weight_granularity": ROW,
            "storage_bits": 4,
        }
        yield simple(
            "coded_depthwise_conv",
            operands | {"y": m.out(pixels * 24)},
            size | kinds,
            {"y": EXACT},
        )
        yield simple(
            "fused_coded_depthwise_conv",
            operands
            | {"factor": m.f(pixels * 24), "codes": m.out(pixels * 24, np.uint8)}
            | {"lower": m.f(24, low=-2, high=-1), "upper": m.f(1, low=2, high=4)},
            size | kinds | {"bits": 4, "granularity": COLUMN},
            {"codes": EXACT},
        )


def coded_products(m):
    # (rows, in, out, bits): 4-bit and 8-bit operands, bits by AND, and sizes off every tile.
    for rows, i, o, bits in (
        (1037, 48, 144, 4),
        (333, 24, 48, 2),
        (65, 432, 48, 1),
        (7, 1021, 33, 8),
    ):
        arrays = {
            "x": m.codes(rows * i, bits),
            "weight": m.codes(o * ((i * bits + 7) // 8), 8),
            "x_lower": m.f(i, low=-1, high=-0.5),
            "x_upper": m.f(1, low=1, high=2),
            "weight_lower": m.f(o, low=-0.5, high=-0.1),
            "weight_upper": m.f(o, low=0.1, high=0.5),
            "bias": m.f(o),
        }
        bounds = {
            "x_bits": bits,
            "weight_bits": bits,
            "x_granularity": COLUMN,
            "weight_granularity": ROW,
            "storage_bits": bits,
        }
        size = {"rows": rows, "in": i, "out": o}
        yield simple("coded_linear", arrays | {"y": m.out(rows * o)}, size | bounds, {"y": EXACT})
        packed = np.zeros((2 * ((i + 3) // 4 * 4) + 12) * ((o + 15) // 16 * 16), np.uint8)
        names = {name: name for name in arrays if name != "x"}
        yield Case(
            "pack_coded_linear, packed_coded_linear",
            arrays | {"packed": packed, "y": m.out(rows * o)},
            [
                ("pack_coded_linear", names | {"packed": "packed", "in": i, "out": o} | bounds),
                (
                    "packed_coded_linear",
                    {
                        "x": "x",
                        "packed": "packed",
                        "y": "y",
                        **size,
                        "x_bits": bits,
                        "weight_bits": bits,
                    },
                ),
            ],
            {"y": EXACT},
        )


def fused_products(m):
    # Linear, residual, norm and codes; and GELU, of whose halves one is kept and one quantised.
    for first, residual in ((0, True), (24, False)):
        rows, i, o = 333, 48, 48
        columns, bits = o - first, 4
        weights = {
            "weight": m.codes(o * i // 2, 8),
            "x_lower": m.f(i, low=-1, high=-0.5),
            "x_upper": m.f(1, low=1, high=2),
            "weight_lower": m.f(o, low=-0.5, high=-0.1),
            "weight_upper": m.f(o, low=0.1, high=0.5),
            "bias": m.f(o),
        }
        kinds = {"x_granularity": COLUMN, "weight_granularity": ROW, "storage_bits": bits}
        size = {"in": i, "out": o, "x_bits": bits, "weight_bits": bits}
        kept = first or o
        chain = {
            "added": m.f(rows * o),
            "scale": m.f(o),
            "residual": m.f(rows * o),
        }
        outputs = {
            "y": m.out(rows * kept),
            "norm_weight": m.f(columns, low=0.5, high=1.5),
            "norm_bias": m.f(columns),
            "lower": m.f(columns, low=-2, high=-1),
            "upper": m.f(1, low=2, high=4),
            "codes": m.out(rows * columns, np.uint8),
        }
        given = chain if residual else {}
        packed = np.zeros((2 * i + 12) * o, np.uint8)
        arrays = weights | given | outputs | {"x": m.codes(rows * i, bits), "packed": packed}
        names = {name: name for name in outputs | {"x": 0, "packed": 0}}
        yield Case(
            "pack_coded_linear, fused_coded_linear",
            arrays,
            [
                (
                    "pack_coded_linear",
                    {name: name for name in weights} | {"packed": "packed"} | size | kinds,
                ),
                (
                    "fused_coded_linear",
                    names
                    | {name: name if residual else None for name in chain}
                    | {"more_lower": None, "more_upper": None, "more_codes": None}
                    | size
                    | {"rows": rows, "gelu": 0 if residual else 1, "kept": kept, "first": first}
                    | {"bits": bits, "granularity": COLUMN, "more_bits": 1, "more_granularity": 0}
                    | {"streamed": 0, "factor": 0.5},
                ),
            ],
            {"y": FLOAT, "codes": (0.07, 0.01)},
        )


def rows_and_elements(m):
    rows, c = 1037, 48
    n = rows * c
    x, y2, w = m.f(n), m.f(n), m.f(c)
    size = {"rows": rows, "channels": c}
    yield simple(
        "layer_norm", {"x": x, "weight": w, "bias": m.f(c), "y": m.out(n)}, size, {"y": FLOAT}
    )
    yield simple(
        "layer_norm_grad",
        {"x": x, "weight": w, "gy": y2, "gx": m.out(n), "gweight": m.out(c), "gbias": m.out(c)},
        size,
        {"gx": FLOAT, "gweight": FLOAT, "gbias": FLOAT},
    )
    wide = m.f(n, low=-6, high=6)
    yield simple("gelu", {"x": wide, "y": m.out(n)}, {"n": n}, {"y": FLOAT})
    yield simple("gelu_grad", {"x": wide, "gy": y2, "gx": m.out(n)}, {"n": n}, {"gx": FLOAT})
    yield simple("sigmoid_gate", {"x": x, "gate": wide, "y": m.out(n)}, {"n": n}, {"y": FLOAT})
    yield simple(
        "sigmoid_gate_grad",
        {"x": x, "gate": wide, "gy": y2, "gx": m.out(n), "ggate": m.out(n)},
        {"n": n},
        {"gx": FLOAT, "ggate": FLOAT},
    )
    for op in ("multiply", "add"):
        yield simple(op, {"a": x, "b": y2, "y": m.out(n)}, {"n": n}, {"y": EXACT})
    yield simple("negative_exp", {"x": x, "y": m.out(n)}, {"n": n}, {"y": FLOAT})
    yield simple("scale", {"x": x, "y": m.out(n)}, {"n": n, "factor": -0.37}, {"y": EXACT})
    yield simple("scale_add", {"x": x, "scale": w, "a": y2, "y": m.out(n)}, size, {"y": EXACT})
    yield simple(
        "scale_add_grad",
        {"x": x, "scale": w, "gy": y2, "gx": m.out(n), "gscale": m.out(c)},
        size,
        {"gx": EXACT, "gscale": FLOAT},
    )
    cut = {"rows": rows, "columns": c, "start": 5, "count": 19}
    yield simple("slice_columns", {"x": x, "y": m.out(rows * 19)}, cut, {"y": EXACT})
    yield simple("slice_columns_grad", {"gy": m.f(rows * 19), "gx": m.out(n)}, cut, {"gx": EXACT})
    index = m.draw.permutation(rows).astype(np.int32)
    for op in ("gather_rows", "scatter_rows"):
        yield simple(op, {"x": x, "index": index, "y": m.out(n)}, size, {"y": EXACT})
    yield simple(
        "pad_image",
        {"x": m.f(2 * 11 * 13 * 3), "mean": m.f(3), "y": m.out(2 * 16 * 16 * 3)},
        {
            "batch": 2,
            "height": 11,
            "width": 13,
            "padded_height": 16,
            "padded_width": 16,
            "channels": 3,
            "reflect": 1,
        },
        {"y": EXACT},
    )
    shuffle = {"batch": 2, "height": 9, "width": 7, "channels": 3, "scale": 4}
    shuffle |= {"out_height": 33, "out_width": 28}
    deep, flat = 2 * 9 * 7 * 48, 2 * 33 * 28 * 3
    yield simple(
        "pixel_shuffle", {"x": m.f(deep), "mean": m.f(3), "y": m.out(flat)}, shuffle, {"y": EXACT}
    )
    yield simple("pixel_shuffle_grad", {"gy": m.f(flat), "gx": m.out(deep)}, shuffle, {"gx": EXACT})


def sequences(m):
    b, h, w, heads, d, window = 1, 32, 32, 4, 12, 16
    n, windows, p = b * h * w * heads * d, (h // window) * (w // window), window * window
    shape = {"batch": b, "height": h, "width": w, "heads": heads, "head_dim": d, "window": window}
    shape |= {"shift": 8}
    table, bounds = m.f((2 * window - 1) ** 2 * heads), np.array([0.001, 0.2], np.float32)
    q, k, v, gy = m.f(n), m.f(n), m.f(n), m.f(n)
    for mode, bits in ((PLAIN, 4), (UNIFORM, 4), (HALF, 4)):
        codes = {"probability_codes": mode, "bits": bits}
        ties = FLOAT if mode == PLAIN else (FLOAT, 0.02)
        arrays = {"q": q, "k": k, "v": v, "bias_table": table, "probability_bounds": bounds}
        yield simple(
            "window_attention",
            arrays | {"y": m.out(n), "probabilities": m.out(b * windows * heads * p * p)},
            shape | codes,
            {"y": ties, "probabilities": FLOAT},
        )
        grads = {"gq": m.out(n), "gk": m.out(n), "gv": m.out(n), "gbias_table": m.out(table.size)}
        yield simple(
            "window_attention_grad",
            arrays | {"gy": gy} | grads | {"gprobability_bounds": m.out(2)},
            shape | codes,
            (
                {
                    name: FLOAT if mode != UNIFORM and name != "gv" else (2e-5, 0.05)
                    for name in grads
                }
                if mode != PLAIN
                else {name: FLOAT for name in grads}
            ),
        )
    for mode, bits, code_bits in (
        (PLAIN, 4, 4),
        (UNIFORM, 4, 4),
        (HALF, 1, 1),
        (HALF, 4, 4),
        (HALF, 8, 8),
    ):
        yield simple(
            "coded_window_attention",
            {
                "q": m.codes(n, code_bits),
                "k": m.codes(n, code_bits),
                "v": m.codes(n, code_bits),
                "grid": np.array([-1.1, 0.9, -1, 1.3, -0.8, 1], np.float32),
                "bias_table": table,
                "probability_bounds": bounds,
                "y": m.out(n),
            },
            shape
            | {"probability_codes": mode, "bits": bits, "code_bits": code_bits}
            | {"y_lower": None, "y_upper": None, "y_codes": None}
            | {"y_bits": 1, "y_granularity": TENSOR},
            {"y": EXACT},
        )
    yield simple(
        "coded_window_attention",
        {
            "q": m.codes(n, 4),
            "k": m.codes(n, 4),
            "v": m.codes(n, 4),
            "grid": np.array([-1.1, 0.9, -1, 1.3, -0.8, 1], np.float32),
            "bias_table": table,
            "y_lower": np.array([-0.6], np.float32),
            "y_upper": np.array([0.7], np.float32),
            "y_codes": m.out(n, np.uint8),
        },
        shape
        | {"probability_codes": HALF, "bits": 4, "code_bits": 4, "y_bits": 4}
        | {"probability_bounds": None, "y": None, "y_granularity": TENSOR},
        {"y_codes": EXACT},
    )
    tokens, count, states = 3000, 64, 8
    noise = {"batch": 2, "tokens": tokens, "count": count, "seed": 7, "tile": 3, "layer": 2}
    logits, classes = m.f(2 * tokens * count), m.draw.integers(0, count, 2 * tokens).astype(
        np.int32
    )
    for mode in (0, 1):
        yield simple(
            "route",
            {"logits": logits, "classes": m.out(2 * tokens, np.int32)},
            noise | {"mode": mode, "first": 5},
            {"classes": EXACT},
        )
        yield simple(
            "route_grad",
            {
                "logits": logits,
                "pool": m.f(count * states),
                "gprompt": m.f(2 * tokens * states),
                "glogits": m.out(logits.size),
            },
            noise | {"mode": mode, "states": states},
            {"glogits": FLOAT},
        )
    yield simple(
        "sort_tokens",
        {
            "classes": classes,
            "order": m.out(2 * tokens, np.int32),
            "inverse": m.out(2 * tokens, np.int32),
        },
        {"batch": 2, "tokens": tokens, "count": count},
        {"order": EXACT, "inverse": EXACT},
    )
    prompt = {"rows": 2 * tokens, "count": count, "states": states}
    c = m.f(2 * tokens * states)
    yield simple(
        "add_prompt",
        {"c": c, "pool": m.f(count * states), "classes": classes, "y": m.out(c.size)},
        prompt,
        {"y": EXACT},
    )
    yield simple(
        "add_prompt_grad",
        {"gy": c, "classes": classes, "gpool": m.out(count * states)},
        prompt,
        {"gpool": FLOAT},
    )
    yield from scans(m)


def scans(m):
    for batch, length, channels, states in ((2, 1000, 48, 8), (1, 300, 150, 5)):
        rows = batch * length
        inputs = {
            "u": m.f(rows * channels),
            "delta": m.f(rows * channels, low=-2, high=2),
            "A": m.f(channels * states, low=-8, high=-0.05),
            "B": m.f(rows * states),
            "C": m.f(rows * states),
            "D": m.f(channels),
            "delta_bias": m.f(channels, low=-3, high=-1),
        }
        size = {"batch": batch, "length": length, "channels": channels, "state_count": states}
        yield simple(
            "selective_scan",
            inputs | {"y": m.out(rows * channels), "states": m.out(rows * channels * states)},
            size | {"state_bits": 8},
            {"y": FLOAT, "states": FLOAT},
            {"state_bounds": None},
        )
        grads = {f"g{name}": m.out(values.size) for name, values in inputs.items()}
        yield simple(
            "selective_scan_grad",
            inputs | {"gy": m.f(rows * channels)} | grads,
            size | {"state_bits": 8},
            {name: FLOAT for name in grads},
            {"state_bounds": None, "gstate_bounds": None},
        )


def quantisers(m):
    rows, columns = 1037, 48
    n = rows * columns
    x, gy = m.f(n, low=-2, high=2), m.f(n)
    for granularity, pairs in ((TENSOR, 1), (ROW, rows), (COLUMN, columns)):
        uppers = pairs if granularity != COLUMN else 1
        lower, upper = m.f(pairs, low=-1.5, high=-1), m.f(uppers, low=1, high=1.5)
        arrays = {"x": x, "lower": lower, "upper": upper}
        size = {"rows": rows, "columns": columns, "granularity": granularity, "bits": 4}
        yield simple("quantize", arrays | {"codes": m.out(n, np.uint8)}, size, {"codes": EXACT})
        yield simple(
            "dequantize",
            {"codes": m.codes(n, 4), "lower": lower, "upper": upper, "y": m.out(n)},
            size,
            {"y": EXACT},
        )
        yield simple("qdq", arrays | {"y": m.out(n)}, size, {"y": EXACT})
        yield simple(
            "qdq_grad",
            arrays | {"gy": gy, "gx": m.out(n), "glower": m.out(pairs), "gupper": m.out(uppers)},
            size,
            {"gx": EXACT, "glower": FLOAT, "gupper": FLOAT},
        )
        if granularity != COLUMN:
            yield simple(
                "dobi",
                {
                    "x": m.draw.normal(size=n).astype(np.float32),
                    "lower": m.out(pairs),
                    "upper": m.out(pairs),
                },
                size | {"one_sided": 0},
                {"lower": EXACT, "upper": EXACT},
            )
    yield from listed_weights(m)


def named(lists):
    """Arrays of a case by name, and its operands that are lists of them: lists: name -> arrays."""
    arrays = {f"{name}{k}": array for name, list_ in lists.items() for k, array in enumerate(list_)}
    operands = {name: [f"{name}{k}" for k in range(len(list_))] for name, list_ in lists.items()}
    return arrays, operands


def listed_weights(m):
    pairs, columns = (144, 1, 7, 1), (48, 20_011, 13, 1)
    n = [a * b for a, b in zip(pairs, columns)]
    arrays, operands = named(
        {
            "x": [m.f(k, low=-2, high=2) for k in n],
            "lower": [m.f(k, low=-1.5, high=-1) for k in pairs],
            "upper": [m.f(k, low=1, high=1.5) for k in pairs],
            "gy": [m.f(k, low=0.1) for k in n],
            "codes": [m.out(k, np.uint8) for k in n],
            "values": [m.out(k) for k in n],
            "gx": [m.out(k) for k in n],
            "glower": [m.out(k) for k in pairs],
            "gupper": [m.out(k) for k in pairs],
        }
    )

    def some(*names):
        return {name: operands[name] for name in ("x", "lower", "upper", *names)} | {"bits": 4}

    exact = ("codes", "values", "gx")
    yield Case(
        "quantize_weights, quantize_weights_grad",
        arrays,
        [
            ("quantize_weights", some("codes", "values")),
            ("quantize_weights_grad", some("gy", "gx", "glower", "gupper")),
        ],
        {name: EXACT for field in exact for name in operands[field]}
        | {name: FLOAT for field in ("glower", "gupper") for name in operands[field]},
    )
    experts, rank, sides = 4, 8, ((48, 144), (24, 48), (3, 1))
    stack = {"experts": experts, "rank": rank}
    given = {
        "weight": [m.f(o * i) for i, o in sides],
        "gmerged": [m.f(o * i) for i, o in sides],
        "a": [m.f(experts * rank * i) for i, o in sides],
        "b": [m.f(experts * rank * o) for i, o in sides],
        "gates": [m.f(experts) for _ in sides],
    }
    made = {"merged": "weight", "ga": "a", "gb": "b", "ggates": "gates"}
    made = {name: [m.out(like.size) for like in given[of]] for name, of in made.items()}
    arrays, operands = named(given | made)

    def lists(*names):
        return {name: operands[name] for name in names} | stack

    yield Case(
        "merge_rectifiers, merge_rectifiers_grad",
        arrays,
        [
            ("merge_rectifiers", lists("weight", "a", "b", "gates", "merged")),
            ("merge_rectifiers_grad", lists("gmerged", "a", "b", "gates", "ga", "gb", "ggates")),
        ],
        {name: FLOAT for field in made for name in operands[field]},
    )


def training(m):
    n = 60_007 * 4
    x, target = m.f(n), m.f(n)
    yield simple(
        "l1_loss",
        {"x": x, "target": target, "loss": m.out(1), "gx": m.out(n)},
        {"n": n},
        {"loss": FLOAT, "gx": FLOAT},
    )
    yield simple(
        "feature_loss",
        {"x": x, "target": target, "loss": m.out(1), "gx": m.out(n)},
        {"n": n, "batch": 4},
        {"loss": FLOAT, "gx": FLOAT},
    )
    sizes = [n, 1, 48, 5000]
    arrays, lists = {}, {"parameters": [], "gradients": [], "m": [], "v": []}
    for field, names in lists.items():
        for i, size in enumerate(sizes):
            names.append(f"{field}{i}")
            arrays[names[-1]] = m.f(size, low=0 if field == "v" else -1)
    yield Case(
        "adam",
        arrays,
        [
            (
                "adam",
                lists
                | {"rates": [1e-2, 1e-3, 2e-2, 0.0]}
                | {"step": 3, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8},
            )
        ],
        {name: FLOAT for field, names in lists.items() if field != "gradients" for name in names},
    )
    rows, columns = 131, 5
    x, gy = m.f(rows * columns, low=-9, high=9), m.f(rows * columns)
    yield Case(
        "softmax",
        {"x": x, "y": m.out(x.size)},
        [("softmax", {"x": ["x"], "y": ["y"], "columns": columns})],
        {"y": FLOAT},
    )
    shares = np.full(x.size, 1 / columns, np.float32)
    yield Case(
        "softmax_grad",
        {"y": shares, "gy": gy, "gx": m.out(x.size)},
        [("softmax_grad", {"y": ["y"], "gy": ["gy"], "gx": ["gx"], "columns": columns})],
        {"gx": FLOAT},
    )
    bounds = {"lower": m.f(rows), "upper": m.f(rows), "low": m.f(1), "high": m.f(1)}
    yield Case(
        "separate_bounds",
        bounds | {"range": m.f(1), "other": m.f(1)},
        [
            (
                "separate_bounds",
                {
                    "lower": ["lower", "low"],
                    "upper": ["upper", "high"],
                    "ranges": ["range", "other"],
                },
            )
        ],
        {name: EXACT for name in ("lower", "upper", "high", "range", "other")},
    )


def every_case(seed=1):
    m = Maker(seed)
    for family in (products, coded_products, fused_products, rows_and_elements, sequences, quantisers, training):
        yield from family(m)
