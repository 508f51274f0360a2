"""Times of the hot kernels on the device: calls recorded into a graph, the graph replayed between
two events, the median of nine samples. Inputs are random, and a graph walks several sets of them
where one would stay in a nearer cache than a network leaves it in. PyTorch's side runs as graphs
too. Bounds and floors: specs of the CUDA issue; a floor names the device it was set for."""

import ctypes
import statistics

import numpy as np

from fused_timing import HEIGHT, TOKENS, WIDTH, fused_rows
from segment_timing import segment_rows
from tables import MergePackLayer, View

SAMPLES = 9
LARGE = 1 << 28  # floats in 1 GiB
H100_CLASS = 90  # floors in microseconds were set for an H200

try:
    import torch
except ImportError:
    torch = None


class Device:
    """Buffers, graphs and events on a stream of their own."""

    def __init__(self, cuda):
        self.cuda = cuda
        self.stream = cuda.handle("stream_create")
        cuda.use_stream(self.stream)
        self.from_, self.to = cuda.handle("event_create"), cuda.handle("event_create")
        self.draw = np.random.default_rng(1)
        self.owned = []

    def put(self, array):
        place = self.cuda.new(array.nbytes)
        self.owned.append(place)
        self.cuda.copy_in(place, array.ctypes.data, array.nbytes)
        return (place, array.size)

    def floats(self, n, low=-1.0, high=1.0):
        """n random floats; beyond 2^22 of them a block is repeated."""
        block = self.draw.uniform(low, high, min(n, 1 << 22)).astype(np.float32)
        if n <= block.size:
            return self.put(block)
        place = self.cuda.new(4 * n)
        self.owned.append(place)
        self.cuda.copy_in(place, block.ctypes.data, block.nbytes)
        for at in range(block.size, n, block.size):
            count = min(block.size, n - at)
            self.cuda.copy(place + 4 * at, place, 4 * count)
        return (place, n)

    def codes(self, n, bits):
        return self.put(self.draw.integers(0, 2**bits, n).astype(np.uint8))

    def empty(self, n, size=4):
        place = self.cuda.new(size * n)
        self.owned.append(place)
        return (place, n)

    def free(self):
        self.cuda.synchronize()
        for place in self.owned:
            self.cuda.release(place)
        self.owned = []

    def microseconds(self, calls, replays=20):
        """Of one of `calls` (functions that queue work), over replays of a graph of them all."""
        for call in calls:
            call()
        self.cuda.synchronize()
        self.cuda.check()
        self.cuda.capture_begin()
        for call in calls:
            call()
        graph = self.cuda.handle("capture_end")
        times = []
        for sample in range(SAMPLES + 1):
            self.cuda.event_record(self.from_)
            for _ in range(replays):
                self.cuda.graph_launch(graph)
            self.cuda.event_record(self.to)
            taken = ctypes.c_double()
            self.cuda.event_milliseconds(self.from_, self.to, ctypes.addressof(taken))
            if sample:  # the first one warms up
                times.append(1000 * taken.value / replays / len(calls))
        self.cuda.graph_destroy(graph)
        self.cuda.check()
        return statistics.median(times)

    def op(self, name, **fields):
        arguments = self.cuda.backend.arguments(name, **fields)
        return lambda: self.cuda.backend.run(name, arguments)


def torch_microseconds(function, replays=20):
    """Of one call of `function`, recorded by PyTorch."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    times = []
    for sample in range(SAMPLES + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        if sample:
            times.append(1000 * start.elapsed_time(end) / replays)
    return statistics.median(times)


def row(name, ours, peer=None, peer_name="", floor=None, most=None, note=""):
    """A line of the table. floor: least ratio peer / ours; most: microseconds at most."""
    result = {"name": name, "ours": round(ours, 2), "unit": "us", "note": note}
    if peer is not None:
        result |= {"peer": round(peer, 2), "peer_name": peer_name, "ratio": round(peer / ours, 3)}
    if floor is not None and peer is not None:
        result |= {"floor": floor, "missed": peer / ours < floor}
    if most is not None:
        result |= {"most": most, "missed": ours > most}
    return result


def quantiser_rows(device):
    n = LARGE
    x, y = device.floats(n), device.empty(n)
    copy = device.microseconds([lambda: device.cuda.copy(y[0], x[0], 4 * n)], 3)
    bandwidth = 8 * n / copy / 1000
    yield row("copy 1 GiB", copy, note=f"{bandwidth:.0f} GB/s, read and written")
    lower, upper = device.put(np.float32([-0.9])), device.put(np.float32([0.8]))
    shape = {"rows": n // 64, "columns": 64, "granularity": 0, "bits": 4}
    bounds = {"x": x, "lower": lower, "upper": upper}
    ours = device.microseconds([device.op("qdq", **bounds, y=y, **shape)], 3)
    yield row("QDQ forward 1 GiB", ours, copy, "copy", floor=0.85)
    gy, sums = device.floats(n), device.empty(1)
    other = device.empty(1)
    ours = device.microseconds(
        [device.op("qdq_grad", **bounds, gy=gy, gx=y, glower=sums, gupper=other, **shape)], 3
    )
    yield row("QDQ backward 1 GiB", ours, copy * 1.5, "copy of as many bytes", floor=0.85)
    device.free()
    if torch:
        data = torch.rand(n, device="cuda") * 2 - 1
        out = torch.empty_like(data)

        def eager():
            torch.mul(data.sub(-0.9).mul_(15 / 1.7).clamp_(0, 15).round_(), 1.7 / 15, out=out)
            out.add_(-0.9)

        yield row("QDQ forward 1 GiB, PyTorch eager", torch_microseconds(eager, 3))
        del data, out
        torch.cuda.empty_cache()


def linear_rows(device):
    for inputs, outputs in ((48, 48), (48, 144)):
        sets = []
        for _ in range(4):
            x, y = device.codes(TOKENS * inputs, 4), device.empty(TOKENS * outputs)
            packed_bytes = (2 * inputs + 12) * outputs
            packed = device.empty(packed_bytes, 1)
            device.op(
                "pack_coded_linear",
                weight=device.codes(outputs * inputs // 2, 8),
                x_lower=device.floats(inputs, -1, -0.5),
                x_upper=device.floats(1, 1, 2),
                weight_lower=device.floats(outputs, -0.5, -0.1),
                weight_upper=device.floats(outputs, 0.1, 0.5),
                bias=device.floats(outputs),
                packed=packed,
                x_bits=4,
                weight_bits=4,
                x_granularity=2,
                weight_granularity=1,
                storage_bits=4,
                **{"in": inputs, "out": outputs},
            )()
            size = {"rows": TOKENS, "in": inputs, "out": outputs, "x_bits": 4, "weight_bits": 4}
            sets.append(device.op("packed_coded_linear", x=x, packed=packed, y=y, **size))
        ours = device.microseconds(sets)
        peer = None
        if torch:
            data = torch.randn(TOKENS, inputs, device="cuda", dtype=torch.float16)
            weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.float16)
            bias = torch.randn(outputs, device="cuda", dtype=torch.float16)
            peer = torch_microseconds(lambda: torch.nn.functional.linear(data, weight, bias))
        note = "ours writes float32, the peer float16"
        yield row(f"packed linear {inputs}->{outputs}", ours, peer, "cuBLAS fp16", 1.3, note=note)
        device.free()


def attention_rows(device, h100):
    n, table = TOKENS * 48, device.floats(961 * 4)
    shape = {"batch": 1, "height": HEIGHT, "width": WIDTH, "heads": 4, "head_dim": 12}
    shape |= {"window": 16, "shift": 8, "probability_codes": 2, "bits": 4, "code_bits": 4}
    grid = device.put(np.float32([-1.1, 0.9, -1, 1.3, -0.8, 1]))
    calls = []
    for _ in range(3):
        codes = {name: device.codes(n, 4) for name in "qkv"}
        calls.append(
            device.op(
                "coded_window_attention",
                **codes,
                grid=grid,
                bias_table=table,
                probability_bounds=None,
                y=device.empty(n),
                y_lower=None,
                y_upper=None,
                y_codes=None,
                y_bits=1,
                y_granularity=0,
                **shape,
            )
        )
    ours = device.microseconds(calls)
    peer = None
    if torch:
        q, k, v = (torch.randn(240, 4, 256, 16, device="cuda", dtype=torch.float16) for _ in "qkv")
        bias = torch.randn(1, 4, 256, 256, device="cuda", dtype=torch.float16)
        attend = torch.nn.functional.scaled_dot_product_attention
        peer = torch_microseconds(lambda: attend(q, k, v, attn_mask=bias))
    most = 45 if h100 else None
    yield row("window attention on 4-bit codes", ours, peer, "SDPA fp16", 3, most)
    device.free()


def scan_rows(device, h100):
    shape = {"batch": 1, "length": TOKENS, "channels": 48, "state_count": 8, "state_bits": 0}
    sizes = {"u": TOKENS * 48, "B": TOKENS * 8, "C": TOKENS * 8, "D": 48}
    forward, backward = [], []
    for _ in range(2):
        inputs = {name: device.floats(n) for name, n in sizes.items()}
        inputs |= {
            "delta": device.floats(TOKENS * 48, -2, 2),
            "A": device.floats(384, -8, -0.5),
            "delta_bias": device.floats(48, -3, -1),
        }
        y = device.empty(TOKENS * 48)
        forward.append(
            device.op("selective_scan", **inputs, state_bounds=None, y=y, states=None, **shape)
        )
        grads = {f"g{name}": device.empty(view[1]) for name, view in inputs.items()}
        gy = device.floats(TOKENS * 48)
        optional = {"state_bounds": None, "gstate_bounds": None}
        backward.append(
            device.op("selective_scan_grad", **inputs, gy=gy, **grads, **optional, **shape)
        )
    ours = device.microseconds(forward)
    yield row("selective scan 61440 x 48 x 8", ours, most=35 if h100 else None)
    behind = device.microseconds(backward)
    yield row("its gradient", behind, 3 * ours, "3 x the forward", 1)
    device.free()


def merge_rows(device, h100):
    """20 layers (qkv, proj, in, out, fc1 and fc2 twice), each by 4 rectifiers of rank 8."""
    layers = []
    for inputs, outputs in 20 * [(48, 144), *6 * [(48, 48)], *2 * [(24, 48)]]:
        layer = MergePackLayer()
        views = {
            "weight": outputs * inputs,
            "a": 4 * 8 * inputs,
            "b": 4 * 8 * outputs,
            "gates": 4,
        }
        for name, n in views.items():
            setattr(layer.merge, name, View(*device.floats(n)))
        for name, value in (("experts", 4), ("rank", 8), ("in", inputs), ("out", outputs)):
            setattr(layer.merge, name, value)
        for name, n, low, high in (
            ("weight_lower", outputs, -0.6, -0.5),
            ("weight_upper", outputs, 0.5, 0.6),
            ("x_lower", inputs, -1, -0.5),
            ("x_upper", 1, 1, 2),
            ("bias", outputs, -1, 1),
        ):
            setattr(layer, name, View(*device.floats(n, low, high)))
        layer.packed = View(*device.empty((2 * inputs + 12) * outputs, 1))
        layer.x_bits = layer.weight_bits = 4
        layer.x_granularity, layer.weight_granularity = 2, 1
        layers.append(layer)
    plan = ctypes.c_void_p()
    whole = (MergePackLayer * len(layers))(*layers)
    device.cuda.merge_pack_create(ctypes.addressof(whole), len(layers), ctypes.addressof(plan))
    ours = device.microseconds([lambda: device.cuda.merge_pack_run(plan.value)])
    device.cuda.merge_pack_destroy(plan.value)
    note = f"{len(layers)} layers, one launch"
    yield row("rectifiers merged, quantised, packed", ours, most=20 if h100 else None, note=note)
    device.free()


def other_rows(device):
    """What else a step is made of, without floors."""
    n = TOKENS * 48
    x, y, w, b = device.floats(n), device.empty(n), device.floats(48), device.floats(48)
    rows = {"rows": TOKENS, "channels": 48}
    image = {"batch": 1, "height": HEIGHT, "width": WIDTH}
    square = {"in": 48, "out": 48}
    filters = device.floats(25 * 48 * 48)
    logits, classes, order = device.floats(TOKENS * 64), device.empty(TOKENS), device.empty(TOKENS)
    noise = {"batch": 1, "tokens": TOKENS, "count": 64, "mode": 1, "seed": 1, "tile": 0}
    sort = {"batch": 1, "tokens": TOKENS, "count": 64}
    wide = {"x": x, "weight": filters, "bias": b, "y": y}
    calls = {
        "LayerNorm 48": device.op("layer_norm", x=x, weight=w, bias=b, y=y, **rows),
        "linear 48->48, float": device.op("linear", **wide, rows=TOKENS, **square),
        "conv 3x3 48->48, float": device.op("conv2d", **wide, kernel=3, **image, **square),
        "depth-wise 5x5 48": device.op("depthwise_conv", **wide, channels=48, kernel=5, **image),
        "route 64 classes, sampled": device.op(
            "route", logits=logits, classes=classes, layer=0, first=0, **noise
        ),
        "counting sort": device.op("sort_tokens", classes=classes, order=order, inverse=None, **sort),
        "gather rows": device.op("gather_rows", x=x, index=order, y=y, **rows),
    }
    for name, call in calls.items():
        yield row(name, device.microseconds([call]))
    device.free()


def measure(cuda, described, seconds_left):
    device = Device(cuda)
    h100 = described.architecture == H100_CLASS
    rows = []
    for part in (
        lambda: quantiser_rows(device),
        lambda: linear_rows(device),
        lambda: attention_rows(device, h100),
        lambda: scan_rows(device, h100),
        lambda: merge_rows(device, h100),
        lambda: fused_rows(device, row, torch, torch_microseconds),
        lambda: segment_rows(device, row),
        lambda: other_rows(device),
    ):
        if seconds_left() < 30:
            print("timings: stopped, the ten minutes are nearly over")
            break
        rows += part()
    cuda.use_stream(None)
    return rows


def show(rows):
    for line in rows:
        peer = goal = verdict = ""
        if "peer" in line:
            peer = f"{line['peer_name']} {line['peer']:.1f}, ratio {line['ratio']}"
        if "most" in line:
            goal = f"at most {line['most']}"
        elif "floor" in line:
            goal = f"floor {line['floor']}"
        if "missed" in line:
            verdict = "MISSED" if line["missed"] else "met"
        ours = f"{line['name']:<42}{line['ours']:>10.1f} us"
        print(f"{ours}  {peer:<40}{goal} {verdict} {line['note']}".rstrip())
    if not torch:
        print("PyTorch is not installed: no peers")
