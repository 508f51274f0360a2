"""Timings of segments: calls on each row by itself in one kernel (native/cuda/segment.cu), beside the
same calls as kernels of their own. Both are plans, replayed on the device's stream. Used by
timing.py."""

import ctypes
import statistics

import numpy as np

from fused_timing import COLUMN, HEIGHT, ROW, TOKENS, WIDTH, packed_layer
from tables import OPS, STRUCTS

REPEATS = 8  # of the calls in a plan, so that what a run of it costs besides is shared
REPLAYS = 10
SAMPLES = 9

SEGMENT, ABSENT, ARENA, CONSTANTS = -1, -1, 0, 3  # core/plan_code.hpp
INDEX = {op: i for i, (op, _) in enumerate(OPS)}
FIELDS = {op: list(STRUCTS[args].kinds) for op, args in OPS}


class HostBlock(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_int64)]


class Description(ctypes.Structure):
    _fields_ = [("code", ctypes.c_void_p), ("length", ctypes.c_int64)]
    _fields_ += [("constants", ctypes.c_void_p)]
    _fields_ += [
        (name, ctypes.c_int64)
        for name in ("constant_count", "arena_bytes", "input_floats", "output_floats")
    ]


class Calls:
    """A list of calls on TOKENS rows, as a plan has it; values of the arena are made where named."""

    def __init__(self):
        self.constants, self.arena, self.code, self.count = [], 0, [], 0

    def constant(self, array):
        self.constants.append(array)
        return (CONSTANTS + len(self.constants) - 1, 0, array.size, 0)

    def floats(self, columns):
        return self._room(TOKENS * columns, 4)

    def codes(self, columns):
        return self._room(TOKENS * columns, 1)

    def _room(self, count, size):
        place = (ARENA, self.arena, count, 0)
        self.arena += (count * size + 255) // 256 * 256
        return place

    def call(self, op, **fields):
        self.code += [INDEX[op], -1, -1]
        for name in FIELDS[op]:
            value = fields.pop(name)
            if value is None:
                self.code += [ABSENT, 0, 0, 0]
            else:
                self.code += value if isinstance(value, tuple) else [value]
        assert not fields, fields
        self.count += 1

    def plan(self, cuda, joined):
        head = [SEGMENT, self.count, TOKENS, TOKENS, 0, 0] if joined else []
        code = np.float64((head + self.code) * REPEATS)
        blocks = [HostBlock(array.ctypes.data, array.nbytes) for array in self.constants]
        blocks = (HostBlock * len(blocks))(*blocks)
        description = Description(
            *(code.ctypes.data, code.size, ctypes.addressof(blocks), len(blocks), self.arena, 1, 1)
        )
        handle = ctypes.c_void_p()
        cuda.plan_create(ctypes.addressof(description), ctypes.addressof(handle))
        return handle.value


def microseconds(device, calls, joined):
    cuda = device.cuda
    plan = calls.plan(cuda, joined)
    ends, times = device.empty(2), []
    for sample in range(SAMPLES + 1):
        cuda.event_record(device.from_)
        for _ in range(REPLAYS):
            cuda.plan_run_device(plan, ends[0], ends[0] + 4, 0)
        cuda.event_record(device.to)
        taken = ctypes.c_double()
        cuda.event_milliseconds(device.from_, device.to, ctypes.addressof(taken))
        if sample:  # the first one records the graph
            times.append(1000 * taken.value / REPLAYS / REPEATS)
    cuda.synchronize()
    cuda.plan_destroy(plan)
    device.free()
    return statistics.median(times)


def layer(device, calls, inputs, outputs, **fields):
    """A coded layer with weights from the device's packing; `fields` are what follows it."""
    place, bytes_ = packed_layer(device, inputs, outputs)
    packed = np.zeros(bytes_, np.uint8)
    device.cuda.copy_out(packed.ctypes.data, place, packed.nbytes)
    rest = {"added": None, "scale": None, "residual": None, "norm_weight": None, "norm_bias": None}
    rest |= {"lower": None, "upper": None, "codes": None, "more_lower": None, "more_upper": None}
    rest |= {"more_codes": None, "gelu": 0, "kept": outputs, "first": 0, "bits": 4}
    rest |= {"granularity": 0, "more_bits": 1, "more_granularity": 0, "streamed": 0, "factor": 1.0}
    rest |= {"rows": TOKENS, "in": inputs, "out": outputs, "x_bits": 4, "weight_bits": 4}
    calls.call("fused_coded_linear", packed=calls.constant(packed), **(rest | fields))


def ramp(calls, columns, low, high):
    return calls.constant(np.linspace(low, high, columns, dtype=np.float32))


def quantise(calls, x, codes, columns):
    bounds = {"lower": ramp(calls, columns, -2, -1), "upper": ramp(calls, 1, 3, 3)}
    grid = {"rows": TOKENS, "columns": columns, "granularity": COLUMN, "bits": 4}
    calls.call("quantize", x=x, codes=codes, **bounds, **grid)


def gathered(device, calls):
    index = calls.constant(device.draw.permutation(TOKENS).astype(np.int32))
    y = calls.floats(48)
    calls.call("gather_rows", x=calls.floats(48), index=index, y=y, rows=TOKENS, channels=48)
    return y


def behind_scan(device):
    """Gather, out_norm, out_proj with residual, norm and codes."""
    calls = Calls()
    normed, codes = calls.floats(48), calls.codes(48)
    scales = {"weight": ramp(calls, 48, 0.5, 1.5), "bias": ramp(calls, 48, -0.1, 0.1)}
    shape = {"rows": TOKENS, "channels": 48}
    calls.call("layer_norm", x=gathered(device, calls), y=normed, **scales, **shape)
    quantise(calls, normed, codes, 48)
    norm = {"norm_weight": scales["weight"], "norm_bias": scales["bias"]}
    coder = {"lower": ramp(calls, 48, -2, -1), "upper": ramp(calls, 1, 3, 3)}
    out = {"y": calls.floats(48), "codes": calls.codes(48), "granularity": COLUMN}
    layer(device, calls, 48, 48, x=codes, added=calls.floats(48), **norm, **coder, **out)
    return calls


def before_scan(device):
    """Gather, x_proj, dt, B, and C with its prompt."""
    calls = Calls()
    codes, projected = calls.codes(48), calls.floats(19)
    quantise(calls, gathered(device, calls), codes, 48)
    layer(device, calls, 48, 19, x=codes, y=projected)
    parts = [calls.floats(count) for count in (3, 8, 8)]
    for y, start, count in zip(parts, (0, 3, 11), (3, 8, 8)):
        cut = {"rows": TOKENS, "columns": 19, "start": start, "count": count}
        calls.call("slice_columns", x=projected, y=y, **cut)
    steps = calls.codes(3)
    quantise(calls, parts[0], steps, 3)
    layer(device, calls, 3, 48, x=steps, y=calls.floats(48))
    classes = calls.constant(device.draw.integers(0, 64, TOKENS).astype(np.int32))
    pool, size = ramp(calls, 64 * 8, -1, 1), {"rows": TOKENS, "count": 64, "states": 8}
    calls.call("add_prompt", c=parts[2], pool=pool, classes=classes, y=calls.floats(8), **size)
    return calls


IMAGE = {"batch": 1, "height": HEIGHT, "width": WIDTH}


def bounds(calls, names, columns=1):
    """Offsets of columns and a range, or a lower and an upper bound, of codes of 4 bits."""
    lower, upper = names
    return {lower: ramp(calls, columns, -2, -1), upper: ramp(calls, 1, 3, 3)}


def coded(calls, columns):
    coder = bounds(calls, ("lower", "upper"), columns)
    return coder | {"codes": calls.codes(columns), "granularity": COLUMN, "bits": 4}


def from_attention(device):
    """Window attention, proj with residual, norm and codes, fc1 with GELU."""
    calls = Calls()
    codes, hidden = calls.codes(48), coded(calls, 48)
    shape = {"heads": 4, "head_dim": 12, "window": 16, "shift": 8, "code_bits": 4}
    calls.call(
        "coded_window_attention",
        **{name: calls.codes(48) for name in "qkv"},
        **(shape | IMAGE | bounds(calls, ("y_lower", "y_upper"), 48)),
        grid=calls.constant(np.float32([-1.1, 0.9, -1, 1.3, -0.8, 1])),
        bias_table=ramp(calls, 961 * 4, -1, 1),
        **{"probability_bounds": None, "probability_codes": 2, "bits": 4},
        **{"y": None, "y_codes": codes, "y_bits": 4, "y_granularity": COLUMN},
    )
    norm = {"norm_weight": ramp(calls, 48, 0.5, 1.5), "norm_bias": ramp(calls, 48, -0.1, 0.1)}
    layer(device, calls, 48, 48, x=codes, added=calls.floats(48), y=calls.floats(48), **norm, **hidden)
    rest = coded(calls, 48)
    layer(device, calls, 48, 48, x=hidden["codes"], y=calls.floats(48), gelu=1, **rest)
    return calls


def from_convolution(device):
    """Depth-wise 5x5 with its factor, fc2 with residual, norm and codes, and a layer behind it."""
    calls = Calls()
    taps = calls.constant(np.arange(24 * 13, dtype=np.uint8))
    gated, normed = coded(calls, 24), coded(calls, 48)
    calls.call(
        "fused_coded_depthwise_conv",
        x=calls.codes(24),
        weight=taps,
        **bounds(calls, ("x_lower", "x_upper"), 24),
        weight_lower=ramp(calls, 24, -0.5, -0.1),
        weight_upper=ramp(calls, 24, 0.1, 0.5),
        bias=ramp(calls, 24, -1, 1),
        factor=calls.floats(24),
        **(gated | IMAGE | {"channels": 24, "kernel": 5, "x_bits": 4, "weight_bits": 4}),
        **{"x_granularity": COLUMN, "weight_granularity": ROW, "storage_bits": 4},
    )
    norm = {"norm_weight": ramp(calls, 48, 0.5, 1.5), "norm_bias": ramp(calls, 48, -0.1, 0.1)}
    rest = {"added": calls.floats(48), "y": calls.floats(48)}
    layer(device, calls, 24, 48, x=gated["codes"], **rest, **norm, **normed)
    layer(device, calls, 48, 48, x=normed["codes"], y=calls.floats(48))
    return calls


SEGMENTS = {
    "behind the scan": behind_scan,
    "before the scan": before_scan,
    "from attention": from_attention,
    "from a convolution": from_convolution,
}


def segment_rows(device, row):
    for name, make in SEGMENTS.items():
        times = [microseconds(device, make(device), joined) for joined in (True, False)]
        kernels = make(device).count
        device.free()
        yield row(f"segment {name}", *times, f"its {kernels} kernels")
