"""Timings of what joins several ops in one kernel: an optimiser's step over all tensors of a network,
and the fused kernels of a packed plan beside their parts one after the other. Used by timing.py."""

import numpy as np

HEIGHT, WIDTH = 192, 320  # what a 720p output at x4 is made from, padded
TOKENS = HEIGHT * WIDTH

COLUMN, ROW = 2, 1
RECTIFIED = 20 * [(48, 144), *6 * [(48, 48)], *2 * [(24, 48)]]  # of MambaIRv2-light


def quantiser(device, columns):
    """Offsets of columns and their range, for codes of 4 bits."""
    return {"lower": device.floats(columns, -2, -1), "upper": device.floats(1, 2, 4)}


def optimiser_rows(device, row, torch, torch_microseconds):
    sizes = [n for i, o in RECTIFIED for n in (4 * 8 * i, 4 * 8 * o, 4, o, o, i, 1)]
    names = ("parameters", "gradients", "m")
    lists = {name: [device.floats(n) for n in sizes] for name in names}
    lists["v"] = [device.floats(n, 0, 1) for n in sizes]
    rest = {"step": 3, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}
    ours = device.microseconds([device.op("adam", **lists, rates=[1e-3] * len(sizes), **rest)])
    peer = None
    if torch:
        leaves = [torch.randn(n, device="cuda", requires_grad=True) for n in sizes]
        for leaf in leaves:
            leaf.grad = torch.randn_like(leaf)
        adam = torch.optim.Adam(leaves, lr=1e-3, fused=True, capturable=True)
        peer = torch_microseconds(adam.step)
    note = f"{len(sizes)} tensors, {sum(sizes)} values"
    yield row("Adam over all tensors", ours, peer, "torch Adam fused", note=note)
    pairs = 640
    bounds = {"lower": [device.floats(48) for _ in range(pairs)]}
    bounds["upper"] = [device.floats(48) for _ in range(pairs)]
    ranges = [device.floats(1) for _ in range(pairs)]
    call = device.op("separate_bounds", **bounds, ranges=ranges)
    yield row("bounds kept apart, all sites", device.microseconds([call]))
    device.free()


def weight_rows(device, row):
    """From the gates' logits to the codes of all weights, and back; three launches each."""
    sides = [(i, o, o * i) for i, o in RECTIFIED]

    def floats(n_of, low=-1, high=1):
        return [device.floats(n_of(*side), low, high) for side in sides]

    experts, rank = 4, 8
    logits, gates, ggates, glogits = (floats(lambda i, o, n: experts) for _ in range(4))
    weight, merged, values, gy, gx = (floats(lambda i, o, n: n) for _ in range(5))
    a, ga = (floats(lambda i, o, n: experts * rank * i) for _ in range(2))
    b, gb = (floats(lambda i, o, n: experts * rank * o) for _ in range(2))
    glower, gupper = (floats(lambda i, o, n: o) for _ in range(2))
    bounds = {"lower": floats(lambda i, o, n: o, -2, -1), "upper": floats(lambda i, o, n: o, 1, 2)}
    codes = [device.codes(n, 4) for _, _, n in sides]
    stack = {"a": a, "b": b, "gates": gates, "experts": experts, "rank": rank}
    forward = [
        device.op("softmax", x=logits, y=gates, columns=experts),
        device.op("merge_rectifiers", weight=weight, merged=merged, **stack),
        device.op("quantize_weights", x=merged, codes=codes, values=values, bits=4, **bounds),
    ]
    grads = {"gx": gx, "glower": glower, "gupper": gupper}
    backward = [
        device.op("quantize_weights_grad", x=merged, gy=gy, bits=4, **bounds, **grads),
        device.op("merge_rectifiers_grad", gmerged=gx, ga=ga, gb=gb, ggates=ggates, **stack),
        device.op("softmax_grad", y=gates, gy=ggates, gx=glogits, columns=experts),
    ]
    note = f"{len(sides)} weights, three launches"
    for name, calls in (("weights merged and coded", forward), ("their gradients", backward)):
        ours = device.microseconds([lambda calls=calls: [call() for call in calls]])
        yield row(name, ours, note=note)
    device.free()


def packed_layer(device, inputs, outputs):
    padded, wide = (inputs + 3) // 4 * 4, (outputs + 15) // 16 * 16
    packed = device.empty((2 * padded + 12) * wide, 1)
    device.op(
        "pack_coded_linear",
        weight=device.codes(outputs * ((inputs + 1) // 2), 8),
        x_lower=device.floats(inputs, -1, -0.5),
        x_upper=device.floats(1, 1, 2),
        weight_lower=device.floats(outputs, -0.5, -0.1),
        weight_upper=device.floats(outputs, 0.1, 0.5),
        bias=device.floats(outputs),
        packed=packed,
        x_bits=4,
        weight_bits=4,
        x_granularity=COLUMN,
        weight_granularity=ROW,
        storage_bits=4,
        **{"in": inputs, "out": outputs},
    )()
    return packed


def linear_rows(device, row):
    """proj with residual, norm and codes; fc1 with GELU, half kept, half normed and coded."""
    n = TOKENS * 48
    size = {"rows": TOKENS, "in": 48, "out": 48, "x_bits": 4, "weight_bits": 4}
    for name, gelu, first in (("residual, norm, codes", 0, 0), ("GELU, norm, codes", 1, 24)):
        columns = 48 - first
        x, packed, y = device.codes(n, 4), packed_layer(device, 48, 48), device.empty(n)
        added = None if gelu else device.floats(n)
        norm = {"norm_weight": device.floats(columns), "norm_bias": device.floats(columns)}
        coder = quantiser(device, columns) | {"codes": device.empty(TOKENS * columns, 1)}
        fused = device.op(
            "fused_coded_linear",
            **{"x": x, "packed": packed, "y": y, "added": added, "scale": None, "residual": None},
            **norm,
            **coder,
            **{"more_lower": None, "more_upper": None, "more_codes": None},
            **size,
            **{"gelu": gelu, "kept": first or 48, "first": first, "bits": 4, "granularity": COLUMN},
            **{"more_bits": 1, "more_granularity": 0, "streamed": 0, "factor": 1.0},
        )
        v, half, normed = device.empty(n), device.empty(n), device.empty(n)
        parts = [device.op("packed_coded_linear", x=x, packed=packed, y=v, **size)]
        if gelu:
            parts.append(device.op("gelu", x=v, y=v, n=n))
            for start, count, to in ((0, first, y), (first, columns, half)):
                cut = {"rows": TOKENS, "columns": 48, "start": start, "count": count}
                parts.append(device.op("slice_columns", x=v, y=to, **cut))
        else:
            parts.append(device.op("add", a=v, b=added, y=y, n=n))
        shape = {"rows": TOKENS, "channels": columns}
        source = half if gelu else y
        scales = {"weight": norm["norm_weight"], "bias": norm["norm_bias"]}
        parts.append(device.op("layer_norm", x=source, **scales, y=normed, **shape))
        grid = {"rows": TOKENS, "columns": columns, "granularity": COLUMN, "bits": 4}
        parts.append(device.op("quantize", x=normed, **coder, **grid))

        def all_parts():
            for part in parts:
                part()

        ours, peer = device.microseconds([fused]), device.microseconds([all_parts])
        yield row(f"linear 48->48, {name}", ours, peer, f"its {len(parts)} parts")
        device.free()


def attention_row(device, row):
    n = TOKENS * 48
    shape = {"batch": 1, "height": HEIGHT, "width": WIDTH, "heads": 4, "head_dim": 12}
    shape |= {"window": 16, "shift": 8, "probability_codes": 2, "bits": 4, "code_bits": 4}
    coder = quantiser(device, 48)
    call = device.op(
        "coded_window_attention",
        **{name: device.codes(n, 4) for name in "qkv"},
        grid=device.put(np.float32([-1.1, 0.9, -1, 1.3, -0.8, 1])),
        bias_table=device.floats(961 * 4),
        probability_bounds=None,
        y=None,
        y_lower=coder["lower"],
        y_upper=coder["upper"],
        y_codes=device.empty(n, 1),
        y_bits=4,
        y_granularity=COLUMN,
        **shape,
    )
    yield row("window attention, codes to codes", device.microseconds([call]))
    device.free()


def convolution_rows(device, row):
    image = {"batch": 1, "height": HEIGHT, "width": WIDTH}
    n, gated = TOKENS * 24, TOKENS * 48
    coder = quantiser(device, 24) | {"codes": device.empty(n, 1)}
    call = device.op(
        "fused_coded_depthwise_conv",
        x=device.codes(n, 4),
        weight=device.codes((24 * 25 + 1) // 2, 8),
        x_lower=device.floats(24, -1, -0.5),
        x_upper=device.floats(1, 1, 2),
        weight_lower=device.floats(24, -0.5, -0.1),
        weight_upper=device.floats(24, 0.1, 0.5),
        bias=device.floats(24),
        factor=device.floats(n),
        **coder,
        **image,
        **{"channels": 24, "kernel": 5, "x_bits": 4, "weight_bits": 4, "x_granularity": COLUMN},
        **{"weight_granularity": ROW, "storage_bits": 4, "bits": 4, "granularity": COLUMN},
    )
    yield row("depth-wise 5x5 24, factor, codes", device.microseconds([call]))
    call = device.op(
        "gated_depthwise_conv",
        x=device.floats(gated),
        weight=device.floats(48 * 9),
        bias=device.floats(48),
        y=device.empty(gated),
        **image,
        **{"channels": 48, "kernel": 3},
    )
    yield row("depth-wise 3x3 48 as a gate", device.microseconds([call]))
    device.free()


def fused_rows(device, row, torch, torch_microseconds):
    yield from optimiser_rows(device, row, torch, torch_microseconds)
    yield from weight_rows(device, row)
    yield from linear_rows(device, row)
    yield from attention_row(device, row)
    yield from convolution_rows(device, row)
