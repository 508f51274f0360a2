"""Timings of segments: calls on each row by itself in one kernel (native/cuda/segment.cu), beside the
same calls as kernels of their own. Both are plans, replayed on the device's stream. Used by
timing.py."""

import ctypes
import statistics

import numpy as np

from fused_timing import COLUMN, TOKENS, packed_layer
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


def segment_rows(device, row):
    for name, make in (("behind", behind_scan), ("before", before_scan)):
        times = [microseconds(device, make(device), joined) for joined in (True, False)]
        kernels = make(device).count
        device.free()
        yield row(f"segment {name} the scan", *times, f"its {kernels} kernels")
