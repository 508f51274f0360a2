"""PyTorch peer: the full-precision x4 forward of MambaIRv2-light on the CPU.

An independent implementation of the network (Guo et al., "MambaIRv2: Attentive State Space
Restoration") in plain PyTorch, used as the whole-network peer of the benchmark and nowhere else.
It loads an official checkpoint, checks itself against a golden forward of the official code, then
times one forward of a 180x320 image (padded to 192x320) and prints one JSON line.

It is meant to be as fast as plain PyTorch gets: inference_mode, channels-last tensors throughout
(a token list (N, 48) is the same memory as a channels-last image), pointwise convolutions as
matrix products, attention one row of windows at a time so that the logits stay in cache, the
attention mask added only to the windows it changes, everything that depends on the weights alone
prepared before timing, and a compiled scan (selective_scan.cpp, built at start-up).

Usage: SPR2Q_TEST_DATA=DIR /usr/bin/python3 mambairv2_torch.py [--threads N] [--runs N] [--check|--serve]
"""

import argparse
import ctypes
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

from blas import blas_name

CHANNELS = 48
HEADS = 4
HEAD_DIM = CHANNELS // HEADS
WINDOW = 16
SHIFT = 8
TOKENS = WINDOW * WINDOW
STATES = 8
DT_RANK = 3
GROUPS = 4
LAYERS = 5
LAYER_NORM_EPS = 1e-5
MASKED = -100.0
MEAN = (0.4488, 0.4371, 0.4040)
# Largest difference accepted against the golden output, an image in 0..1: about thirty times what
# a different summation order gives (7e-7), and far below one 8-bit step (4e-3).
TOLERANCE = 2e-5


def keep_freed_memory():
    """Stops glibc from returning every large temporary to the kernel.

    PyTorch allocates each activation afresh on the CPU; with the default thresholds each is
    mapped, page-faulted and unmapped again, which would time the kernel and not the network.
    """
    mmap_threshold, trim_threshold, arena_max = -3, -1, -8
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        libc.mallopt(arena_max, 1)


def build_scan(threads):
    """Compiles selective_scan.cpp and returns scan(u, delta, a, b, c, d) -> y."""
    source = pathlib.Path(__file__).with_name("selective_scan.cpp")
    compiler = os.environ.get("CXX", "g++")
    flags = ["-std=c++17", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        obj, lib = f"{folder}/scan.o", f"{folder}/scan.so"
        subprocess.run([compiler, *flags, "-c", str(source), "-o", obj], check=True)
        # Linked without -ffast-math: that flag at link time would change the process's rounding
        # of subnormal numbers.
        subprocess.run([compiler, "-shared", "-fopenmp", obj, "-o", lib, "-lmvec", "-lm"], check=True)
        function = ctypes.CDLL(lib).selective_scan
    function.argtypes = [ctypes.c_void_p] * 7 + [ctypes.c_int64, ctypes.c_int]
    function.restype = None

    def scan(u, delta, a, b, c, d):
        tensors = (u, delta, a, b, c, d)
        for tensor in tensors:
            assert tensor.is_contiguous() and tensor.dtype == torch.float32
        y = torch.empty_like(u)
        function(*(x.data_ptr() for x in tensors), y.data_ptr(), u.shape[0], threads)
        return y

    return scan


def read_safetensors(path):
    """Reads a safetensors file of F32 and I32 tensors into a dict of torch tensors."""
    dtypes = {"F32": torch.float32, "I32": torch.int32}
    data = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    body = bytearray(data[8 + size :])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = dtypes[entry["dtype"]]
        flat = torch.frombuffer(body, dtype=dtype, count=(end - begin) // 4, offset=begin)
        tensors[name] = flat.reshape(entry["shape"]).clone()
    return tensors


def read_checkpoint(path):
    """Reads an official .pth: the state dict under `params`, keys without `module.`."""
    state = torch.load(path, map_location="cpu")
    state = state.get("params", state)
    return {k[7:] if k.startswith("module.") else k: v for k, v in state.items()}


def relative_position_index():
    """Index (256, 256) into the (31*31, heads) bias table for query row, key column."""
    axis = torch.arange(WINDOW)
    y, x = (g.flatten() for g in torch.meshgrid(axis, axis, indexing="ij"))
    dy = y[:, None] - y[None, :] + WINDOW - 1
    dx = x[:, None] - x[None, :] + WINDOW - 1
    return dy * (2 * WINDOW - 1) + dx


def shift_mask(last_row, last_column):
    """Mask (256, 256) of a shifted window: -100 between pixels that were not neighbours."""
    half = (torch.arange(WINDOW) >= WINDOW - SHIFT).long()
    label = (half[:, None] * last_row * 2 + half[None, :] * last_column).flatten()
    return (label[:, None] != label[None, :]).float() * MASKED


def channels_last(weight):
    return weight.contiguous(memory_format=torch.channels_last)


def layer_norm(x, weights):
    return F.layer_norm(x, (x.shape[-1],), weights[0], weights[1], LAYER_NORM_EPS)


def image_conv(tokens, height, width, weights, padding, groups=1):
    """Convolves tokens (N, C) as the channels-last image they are; returns tokens (N, C')."""
    image = tokens.view(1, height, width, tokens.shape[1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weights[0], weights[1], padding=padding, groups=groups)
    return out.permute(0, 2, 3, 1).reshape(height * width, -1)


class GatedMlp:
    def __init__(self, state, prefix):
        self.fc1 = (state[prefix + "fc1.weight"], state[prefix + "fc1.bias"])
        self.norm = (state[prefix + "sg.norm.weight"], state[prefix + "sg.norm.bias"])
        conv = state[prefix + "sg.conv.weight"]
        self.conv = (channels_last(conv), state[prefix + "sg.conv.bias"])
        self.fc2 = (state[prefix + "fc2.weight"], state[prefix + "fc2.bias"])

    def __call__(self, z, height, width):
        kept, gate = F.gelu(F.linear(z, *self.fc1)).chunk(2, dim=1)
        gate = layer_norm(gate, self.norm)
        gate = image_conv(gate, height, width, self.conv, 2, gate.shape[1])
        return F.linear(gate.mul_(kept), *self.fc2)


class WindowAttention:
    def __init__(self, state, prefix, shift):
        table = state[prefix + "relative_position_bias_table"]
        self.bias = table[relative_position_index()].permute(2, 0, 1).contiguous()
        self.proj = (state[prefix + "proj.weight"], state[prefix + "proj.bias"])
        self.shift = shift
        self.masks = {(r, c): shift_mask(r, c) for r, c in ((0, 1), (1, 0), (1, 1))}

    def __call__(self, qkv, height, width):
        columns = width // WINDOW
        image = qkv.view(height, width, 3 * CHANNELS)
        if self.shift:
            image = torch.roll(image, (-SHIFT, -SHIFT), (0, 1))
        out = torch.empty(height, width, CHANNELS)
        for top in range(0, height, WINDOW):
            row = image[top : top + WINDOW].view(WINDOW, columns, WINDOW, 3, HEADS, HEAD_DIM)
            # (3, window * head, token, head_dim)
            row = row.permute(3, 1, 4, 0, 2, 5).reshape(3, columns * HEADS, TOKENS, HEAD_DIM)
            query, key, value = row.unbind(0)
            logits = torch.bmm(query * HEAD_DIM**-0.5, key.transpose(1, 2))
            logits = logits.view(columns, HEADS, TOKENS, TOKENS).add_(self.bias)
            if self.shift:
                if top + WINDOW == height:
                    logits[:-1].add_(self.masks[1, 0])
                    logits[-1].add_(self.masks[1, 1])
                else:
                    logits[-1].add_(self.masks[0, 1])
            weights = torch.softmax(logits, -1).view(-1, TOKENS, TOKENS)
            mixed = torch.bmm(weights, value).view(columns, HEADS, WINDOW, WINDOW, HEAD_DIM)
            target = out[top : top + WINDOW].view(WINDOW, columns, WINDOW, HEADS, HEAD_DIM)
            target.copy_(mixed.permute(2, 0, 3, 1, 4))
        out = F.linear(out, *self.proj)
        if self.shift:
            out = torch.roll(out, (SHIFT, SHIFT), (0, 1))
        return out.view(-1, CHANNELS)


class StateSpace:
    """The attentive state-space module: route, sort by class, scan, un-sort."""

    def __init__(self, state, prefix, embedding_a, scan):
        self.scan = scan
        self.prompts = state[prefix + "embeddingB.weight"] @ embedding_a
        self.route0 = (state[prefix + "route.0.weight"], state[prefix + "route.0.bias"])
        self.route2 = (state[prefix + "route.2.weight"], state[prefix + "route.2.bias"])
        weight = state[prefix + "in_proj.0.weight"].reshape(CHANNELS, CHANNELS)
        self.in_proj = (weight, state[prefix + "in_proj.0.bias"])
        self.cpe = (channels_last(state[prefix + "CPE.0.weight"]), state[prefix + "CPE.0.bias"])
        self.x_proj = state[prefix + "selectiveScan.x_proj_weight"][0]
        self.dt_proj = (
            state[prefix + "selectiveScan.dt_projs_weight"][0],
            state[prefix + "selectiveScan.dt_projs_bias"][0],
        )
        self.a = -torch.exp(state[prefix + "selectiveScan.A_logs"])
        self.d = state[prefix + "selectiveScan.Ds"]
        self.norm = (state[prefix + "out_norm.weight"], state[prefix + "out_norm.bias"])
        self.out_proj = (state[prefix + "out_proj.weight"], state[prefix + "out_proj.bias"])

    def __call__(self, z, height, width, route):
        if route is None:
            route = F.linear(F.gelu(F.linear(z, *self.route0)), *self.route2).argmax(-1)
        prompt = self.prompts.index_select(0, route)
        order = torch.sort(route, stable=True).indices
        v = F.linear(z, *self.in_proj)
        v = torch.sigmoid_(image_conv(v, height, width, self.cpe, 1, CHANNELS)).mul_(v)
        u = v.index_select(0, order)
        low, b, c = F.linear(u, self.x_proj).split((DT_RANK, STATES, STATES), dim=1)
        delta = F.linear(low, *self.dt_proj)
        # The released weights were trained with the prompt in raster order, not in sorted order.
        y = self.scan(u, delta, self.a, b.contiguous(), c + prompt, self.d)
        out = F.linear(layer_norm(y, self.norm), *self.out_proj)
        return torch.empty_like(out).index_copy_(0, order, out)


class Layer:
    def __init__(self, state, prefix, shift, scan):
        self.norms = [
            (state[f"{prefix}norm{i}.weight"], state[f"{prefix}norm{i}.bias"]) for i in range(1, 5)
        ]
        self.scales = (state[prefix + "scale1"], state[prefix + "scale2"])
        self.qkv = (state[prefix + "wqkv.weight"], state[prefix + "wqkv.bias"])
        self.attention = WindowAttention(state, prefix + "win_mhsa.", shift)
        self.mlps = (GatedMlp(state, prefix + "convffn1."), GatedMlp(state, prefix + "convffn2."))
        embedding_a = state[prefix + "embeddingA.weight"]
        self.space = StateSpace(state, prefix + "assm.", embedding_a, scan)

    def __call__(self, x, height, width, route):
        qkv = F.linear(layer_norm(x, self.norms[0]), *self.qkv)
        a = self.attention(qkv, height, width).add_(x)
        a = self.mlps[0](layer_norm(a, self.norms[1]), height, width).add_(a)
        x = a.addcmul_(x, self.scales[0])
        b = self.space(layer_norm(x, self.norms[2]), height, width, route).add_(x)
        b = self.mlps[1](layer_norm(b, self.norms[3]), height, width).add_(b)
        return b.addcmul_(x, self.scales[1])


class MambaIRv2Light:
    def __init__(self, state, scan):
        def conv(name):
            return channels_last(state[name + ".weight"]), state[name + ".bias"]

        def norm(name):
            return state[name + ".weight"], state[name + ".bias"]

        self.first, self.after_body = conv("conv_first"), conv("conv_after_body")
        self.upsample = conv("upsample.0")
        self.scale = round((self.upsample[0].shape[0] / 3) ** 0.5)
        self.embed_norm, self.norm = norm("patch_embed.norm"), norm("norm")
        self.group_convs = [conv(f"layers.{g}.conv") for g in range(GROUPS)]
        self.layers = [
            [
                Layer(state, f"layers.{g}.residual_group.layers.{j}.", j % 2 == 1, scan)
                for j in range(LAYERS)
            ]
            for g in range(GROUPS)
        ]
        self.mean = torch.tensor(MEAN)

    def __call__(self, image, routes=None):
        """Maps (1, 3, h, w) in 0..1 to (1, 3, h*scale, w*scale); `routes` (20, N) replays."""
        h, w = image.shape[2:]
        height, width = -(-h // WINDOW) * WINDOW, -(-w // WINDOW) * WINDOW
        x = torch.cat((image, image.flip(2)), 2)[:, :, :height]
        x = torch.cat((x, x.flip(3)), 3)[:, :, :, :width]
        x = x[0].permute(1, 2, 0).reshape(-1, 3) - self.mean
        first = image_conv(x, height, width, self.first, 1)
        t = layer_norm(first, self.embed_norm)
        for g, group in enumerate(self.layers):
            inner = t
            for j, layer in enumerate(group):
                route = None if routes is None else routes[g * LAYERS + j]
                inner = layer(inner, height, width, route)
            t = image_conv(inner, height, width, self.group_convs[g], 1).add_(t)
        body = image_conv(layer_norm(t, self.norm), height, width, self.after_body, 1).add_(first)
        out = image_conv(body, height, width, self.upsample, 1)
        out = out.view(1, height, width, -1).permute(0, 3, 1, 2)
        out = F.pixel_shuffle(out, self.scale) + self.mean.view(1, 3, 1, 1)
        return out[:, :, : h * self.scale, : w * self.scale]


def check(network, path):
    """Compares with the official forward, routes replayed; returns the largest difference."""
    golden = read_safetensors(path)
    replayed = network(golden["input"], golden["routes"].long())
    difference = (replayed - golden["output"]).abs().max().item()
    free = (network(golden["input"]) - golden["output"]).abs().max().item()
    print(
        f"golden forward: max abs difference {difference:.3g} (routes replayed), {free:.3g} (argmax)",
        file=sys.stderr,
    )
    return difference


def measure(network, height, width, runs):
    """Seconds of each of `runs` forwards after one warm-up."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    network(image)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        network(image)
        seconds.append(time.perf_counter() - start)
    return seconds


def serve(network, height, width):
    """Answers every line on stdin with the seconds of one forward, so that the benchmark can take
    its own samples and these in turn."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    network(image)
    print(json.dumps({"ready": True, "torch": torch.__version__, "blas": blas_name()}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        network(image)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Times MambaIRv2-light x4 in PyTorch on the CPU.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--height", type=int, default=180)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--check", action="store_true", help="check only, no timing")
    parser.add_argument("--serve", action="store_true", help="one forward per line on stdin")
    options = parser.parse_args()
    if "SPR2Q_TEST_DATA" not in os.environ:
        sys.exit("SPR2Q_TEST_DATA is not set: it names the folder with weights/ and golden/.")
    data = pathlib.Path(os.environ["SPR2Q_TEST_DATA"])

    keep_freed_memory()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        state = read_checkpoint(data / "weights/mambairv2_lightSR_x4.pth")
        network = MambaIRv2Light(state, build_scan(options.threads))
        golden = data / "golden/mambairv2-light-x4/forward-argmax.safetensors"
        difference = check(network, golden)
        if not difference <= TOLERANCE:
            sys.exit(f"the forward differs from the golden by {difference:.3g} > {TOLERANCE:.3g}.")
        if options.check:
            return
        if options.serve:
            serve(network, options.height, options.width)
            return
        seconds = measure(network, options.height, options.width, options.runs)
    row = {
        "name": f"mambairv2-light x4 fp32 {options.height}x{options.width}",
        "seconds_median": round(statistics.median(seconds), 4),
        "seconds_min": round(min(seconds), 4),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
