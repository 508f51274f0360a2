"""PyTorch peer of training: one RGT step of 4-bit MambaIRv2-light x2 on the CPU.

The step that `spr2q bench --suite train` times, written as one would write it in PyTorch: the
teacher's forward without gradients, then the student's forward on the teacher's routes, with
quantisers by straight-through rounding (an offset per channel for inputs, a range per output for
weights, half-exponent codes for the softmax) and merged rectifiers, mean L1 and relative feature
loss, backward, and Adam on bounds and rectifiers. The scan is compiled, forward and backward
(selective_scan_step.cpp). Layers are recomputed in the backward pass (torch.utils.checkpoint), as
ours are: their insides do not fit into memory at this batch.

Before it times anything it checks itself: with quantisers and rectifiers off, loss and the norms
of the parameters' gradients must agree with a golden backward of the official code.

Usage: SPR2Q_TEST_DATA=DIR /usr/bin/python3 mambairv2_step_torch.py [--threads N] [--check|--serve]
"""

import argparse
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

from blas import blas_name
from mambairv2_torch import (
    CHANNELS,
    DT_RANK,
    GROUPS,
    HEAD_DIM,
    HEADS,
    LAYERS,
    LAYER_NORM_EPS,
    MEAN,
    SHIFT,
    STATES,
    TOKENS,
    WINDOW,
    keep_freed_memory,
    read_checkpoint,
    read_safetensors,
    relative_position_index,
    shift_mask,
)
from torch.utils.checkpoint import checkpoint

BITS = 4
EXPERTS = 4
RANK = 8
FEATURE_WEIGHT = 0.02
# Gradients agree with the golden's to this share of their norm; other summation orders give 2e-6.
TOLERANCE = 1e-4


def build_scan(threads):
    """Compiles selective_scan_step.cpp and returns it as a differentiable function."""
    source = pathlib.Path(__file__).with_name("selective_scan_step.cpp")
    flags = ["-std=c++17", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        obj, lib = f"{folder}/scan.o", f"{folder}/scan.so"
        compiler = os.environ.get("CXX", "g++")
        subprocess.run([compiler, *flags, "-c", str(source), "-o", obj], check=True)
        subprocess.run([compiler, "-shared", "-fopenmp", obj, "-o", lib, "-lmvec", "-lm"], check=True)
        library = ctypes.CDLL(lib)
    sizes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    library.scan_forward.argtypes = [ctypes.c_void_p] * 7 + sizes
    library.scan_backward.argtypes = [ctypes.c_void_p] * 13 + sizes

    class Scan(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *operands):
            operands = [x.contiguous() for x in operands]
            ctx.save_for_backward(*operands)
            y = torch.empty_like(operands[0])
            pointers = [x.data_ptr() for x in (*operands, y)]
            library.scan_forward(*pointers, y.shape[0], y.shape[1], threads)
            return y

        @staticmethod
        def backward(ctx, gy):
            operands = ctx.saved_tensors
            gradients = [torch.empty_like(x) for x in operands]
            gy = gy.contiguous()
            pointers = [x.data_ptr() for x in (*operands, gy, *gradients)]
            library.scan_backward(*pointers, gy.shape[0], gy.shape[1], threads)
            return tuple(gradients)

    return Scan.apply


def straight_through(x):
    return x + (torch.round(x) - x).detach()


class Quantisers:
    """Bounds and rectifiers by site, made at the first look; absent while `off`."""

    def __init__(self):
        self.off = False
        self.bounds, self.groups = {}, {}

    def parameters(self):
        groups = [x for group in self.groups.values() for x in group]
        return [x for pair in self.bounds.values() for x in pair] + groups

    def __call__(self, site, x, kind="tensor"):
        if self.off:
            return x
        levels = 2**BITS - 1
        if site not in self.bounds:
            axis = {"row": 1, "column": 0}.get(kind)
            flat = x.detach().reshape(x.shape[0], -1) if kind != "tensor" else x.detach()
            if axis is None:
                low, high = flat.min().reshape(1), flat.max().reshape(1)
            else:
                low, high = flat.amin(axis), flat.amax(axis)
            if kind == "column":
                high = (high - low).max().reshape(1)
            self.bounds[site] = (low.clone().requires_grad_(), high.clone().requires_grad_())
        low, high = self.bounds[site]
        width = high if kind == "column" else high - low
        if kind == "row":
            shape = [-1] + [1] * (x.dim() - 1)
            low, width = low.view(shape), width.view(shape)
        u = torch.clamp((x - low) / width * levels, 0, levels)
        return straight_through(u) / levels * width + low

    def weight(self, site, weight, rectified):
        if self.off:
            return weight
        if rectified:
            if site not in self.groups:
                rows, columns = weight.shape
                a = (torch.rand(EXPERTS, RANK, columns) * 2 - 1) * columns**-0.5
                group = (a, torch.zeros(EXPERTS, rows, RANK), torch.zeros(EXPERTS))
                self.groups[site] = tuple(x.requires_grad_() for x in group)
            a, b, logits = self.groups[site]
            gates = torch.softmax(logits, 0).view(EXPERTS, 1, 1)
            weight = weight + (gates * torch.bmm(b, a)).sum(0)
        return self(site + ".w", weight, "row")


class Network:
    """The forward pass on a batch of images of whole windows; `q` may quantise."""

    def __init__(self, state, scan, q):
        self.state, self.scan, self.q = state, scan, q
        self.index = relative_position_index()
        self.scale = round((state["upsample.0.weight"].shape[0] / 3) ** 0.5)
        self.mean = torch.tensor(MEAN).view(1, 3, 1, 1)

    def norm(self, name, x):
        weights = self.state[name + ".weight"], self.state[name + ".bias"]
        return F.layer_norm(x, (x.shape[-1],), *weights, LAYER_NORM_EPS)

    def linear(self, name, x, rectified=True, weight=None, bias=None):
        weight = self.state[name + ".weight"] if weight is None else weight
        bias = self.state.get(name + ".bias") if bias is None else bias
        weight = self.q.weight(name, weight.reshape(weight.shape[0], -1), rectified)
        return F.linear(self.q(name + ".x", x, "column"), weight, bias)

    def conv(self, name, x, sides, groups=1, quantised=False):
        """A convolution of tokens (rows, channels) as channels-last images."""
        batch, height, width = sides
        weight, bias = self.state[name + ".weight"], self.state[name + ".bias"]
        if quantised:
            weight, x = self.q.weight(name, weight, False), self.q(name + ".x", x, "column")
        image = x.view(batch, height, width, -1).permute(0, 3, 1, 2)
        out = F.conv2d(image, weight, bias, padding=weight.shape[-1] // 2, groups=groups)
        return out.permute(0, 2, 3, 1).reshape(batch * height * width, -1)

    def windows(self, x, sides, shift):
        batch, height, width = sides
        x = x.view(batch, height, width, CHANNELS)
        if shift:
            x = torch.roll(x, (-SHIFT, -SHIFT), (1, 2))
        x = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, HEADS, HEAD_DIM)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, HEADS, TOKENS, HEAD_DIM)

    def mask(self, sides):
        _, height, width = sides
        down, across = height // WINDOW, width // WINDOW
        rows = [shift_mask(r == down - 1, c == across - 1) for r in range(down) for c in range(across)]
        return torch.stack(rows).view(1, down * across, 1, TOKENS, TOKENS)

    def attention(self, prefix, n, sides, shift):
        batch, height, width = sides
        weight, bias = self.state[prefix + "wqkv.weight"], self.state[prefix + "wqkv.bias"]
        parts = []
        for i, letter in enumerate("qkv"):
            rows = slice(i * CHANNELS, (i + 1) * CHANNELS)
            name = f"{prefix}wqkv.{letter}"
            part = self.linear(name, n, True, weight[rows], bias[rows])
            part = part * HEAD_DIM**-0.5 if i == 0 else part
            parts.append(self.windows(self.q(f"{prefix}{letter}", part), sides, shift))
        query, key, value = parts
        table = self.state[prefix + "win_mhsa.relative_position_bias_table"]
        logits = query @ key.transpose(-1, -2) + table[self.index].permute(2, 0, 1)
        if shift:
            shape = (batch, -1, HEADS, TOKENS, TOKENS)
            logits = (logits.view(shape) + self.mask(sides)).view(-1, HEADS, TOKENS, TOKENS)
        if self.q.off:
            mixed = torch.softmax(logits, -1) @ value
        else:  # half exponents: round(L exp((l - max) / 2)), squared
            levels = 2**BITS - 1
            top = logits.detach().amax(-1, keepdim=True)
            power = straight_through(levels * torch.exp((logits - top) / 2)) ** 2
            mixed = (power @ value) / power.sum(-1, keepdim=True)
        down, across = height // WINDOW, width // WINDOW
        mixed = mixed.view(batch, down, across, HEADS, WINDOW, WINDOW, HEAD_DIM)
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, CHANNELS)
        if shift:
            mixed = torch.roll(mixed, (SHIFT, SHIFT), (1, 2))
        return self.linear(prefix + "win_mhsa.proj", mixed.reshape(-1, CHANNELS))

    def mlp(self, prefix, x, sides):
        kept, gate = F.gelu(self.linear(prefix + "fc1", x)).chunk(2, dim=1)
        gate = self.norm(prefix + "sg.norm", gate)
        gate = self.conv(prefix + "sg.conv", gate, sides, gate.shape[1], True)
        return self.linear(prefix + "fc2", kept * gate)

    def space(self, prefix, z, embedding_a, sides, routes):
        batch = sides[0]
        name = prefix + "selectiveScan."
        logits = self.linear(prefix + "route.2", F.gelu(self.linear(prefix + "route.0", z)))
        chosen = logits.argmax(-1) if routes is None else routes
        soft = torch.softmax(logits, -1)
        hard = F.one_hot(chosen, logits.shape[1]).float() - soft.detach() + soft
        embedding_b = self.q(prefix + "embeddingB.w", self.state[prefix + "embeddingB.weight"])
        pool = self.q(prefix + "pool", embedding_b @ self.q(prefix + "embeddingA.w", embedding_a))
        order = torch.sort(chosen.view(batch, -1), dim=1, stable=True).indices
        tokens = order.shape[1]
        order = (order + torch.arange(batch).view(-1, 1) * tokens).reshape(-1)
        v = self.linear(prefix + "in_proj.0", z, False)
        u = (v * torch.sigmoid(self.conv(prefix + "CPE.0", v, sides, CHANNELS))).index_select(0, order)
        projected = self.linear(name + "x_proj", u, False, self.state[name + "x_proj_weight"][0])
        low, b, c = projected.split((DT_RANK, STATES, STATES), dim=1)
        delta = self.linear(name + "dt", low, False, self.state[name + "dt_projs_weight"][0])
        delta = delta + self.state[name + "dt_projs_bias"][0]
        a = -torch.exp(self.state[name + "A_logs"])
        split = [x.reshape(batch, tokens, -1) for x in (u, delta, b, c + hard @ pool)]
        y = self.scan(split[0], split[1], a, split[2], split[3], self.state[name + "Ds"])
        out = self.linear(prefix + "out_proj", self.norm(prefix + "out_norm", y.view(-1, CHANNELS)))
        return torch.empty_like(out).index_copy(0, order, out), chosen

    def layer(self, prefix, x, sides, shift, routes):
        s = self.state
        a = self.attention(prefix, self.norm(prefix + "norm1", x), sides, shift) + x
        a = self.mlp(prefix + "convffn1.", self.norm(prefix + "norm2", a), sides) + a
        x = x * s[prefix + "scale1"] + a
        z = self.norm(prefix + "norm3", x)
        space, chosen = self.space(prefix + "assm.", z, s[prefix + "embeddingA.weight"], sides, routes)
        b = space + x
        b = self.mlp(prefix + "convffn2.", self.norm(prefix + "norm4", b), sides) + b
        return x * s[prefix + "scale2"] + b, chosen

    def __call__(self, images, routes=None, recompute=False):
        """Images (batch, 3, h, w) to larger ones; also every layer's output and routes."""
        batch, _, h, w = images.shape
        height, width = -(-h // WINDOW) * WINDOW, -(-w // WINDOW) * WINDOW
        x = torch.cat((images, images.flip(2)), 2)[:, :, :height]
        x = torch.cat((x, x.flip(3)), 3)[:, :, :, :width] - self.mean
        sides = batch, height, width
        first = self.conv("conv_first", x.permute(0, 2, 3, 1).reshape(-1, 3), sides)
        t = self.norm("patch_embed.norm", first)
        outputs, chosen = [], []
        for g in range(GROUPS):
            entering = t
            for j in range(LAYERS):
                prefix = f"layers.{g}.residual_group.layers.{j}."
                route = None if routes is None else routes[len(chosen)]
                operands = prefix, t, sides, j % 2 == 1, route
                t, choice = checkpoint(self.layer, *operands) if recompute else self.layer(*operands)
                outputs.append(t)
                chosen.append(choice)
            t = self.conv(f"layers.{g}.conv", t, sides) + entering
        body = self.conv("conv_after_body", self.norm("norm", t), sides) + first
        out = self.conv("upsample.0", body, sides).view(batch, height, width, -1)
        out = F.pixel_shuffle(out.permute(0, 3, 1, 2), self.scale) + self.mean
        return out[:, :, : h * self.scale, : w * self.scale], outputs, chosen


def check(state, scan, path):
    """Compares loss and gradient norms with the golden; returns the largest relative error."""
    golden = read_safetensors(path)
    q = Quantisers()
    q.off = True
    leaves = {name: x.clone().requires_grad_() for name, x in state.items() if x.is_floating_point()}
    output, layers, _ = Network(leaves, scan, q)(golden["input"], golden["routes"].long(), False)
    loss = (output - golden["target"]).abs().mean()
    for f in layers:  # the golden's loss reaches every layer's output, too
        loss = loss + 0.1 * (f - 0.9 * f.detach()).pow(2).mean()
    loss.backward()
    worst = abs(loss.item() / golden["loss"].item() - 1)
    norms = {k[:-5]: v.item() for k, v in golden.items() if k.endswith("#norm")}
    floor = 1e-3 * max(norms.values())
    for name, norm in norms.items():
        gradient = leaves[name].grad
        got = 0.0 if gradient is None else gradient.norm().item()
        worst = max(worst, abs(got - norm) / max(norm, floor))
    return worst


class Step:
    def __init__(self, state, scan, batch, patch):
        q = Quantisers()
        self.off = Quantisers()
        self.off.off = True
        self.teacher, self.student = Network(state, scan, self.off), Network(state, scan, q)
        self.images = torch.rand(batch, 3, patch, patch, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            self.student(self.images[:1])
        self.adam = torch.optim.Adam(q.parameters(), lr=1e-9, betas=(0.9, 0.99))

    def __call__(self):
        with torch.no_grad():
            target, wanted, routes = self.teacher(self.images)
        # checkpoint() needs an input that asks for gradients.
        images = self.images.clone().requires_grad_()
        output, got, _ = self.student(images, routes, True)
        loss = (output - target).abs().mean()
        for mine, theirs in zip(got, wanted):
            part = (mine - theirs).pow(2).sum() / theirs.pow(2).sum()
            loss = loss + FEATURE_WEIGHT / len(got) * part
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def main():
    parser = argparse.ArgumentParser(description="Times one RGT step in PyTorch on the CPU.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--check", action="store_true", help="check only, no timing")
    parser.add_argument("--serve", action="store_true", help="one step per line on stdin")
    options = parser.parse_args()
    if "SPR2Q_TEST_DATA" not in os.environ:
        sys.exit("SPR2Q_TEST_DATA is not set: it names the folder with weights/ and golden/.")
    data = pathlib.Path(os.environ["SPR2Q_TEST_DATA"])
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    state = read_checkpoint(data / "weights/mambairv2_lightSR_x2.pth")
    scan = build_scan(options.threads)
    worst = check(state, scan, data / "golden/mambairv2-light-x2/backward-argmax.safetensors")
    print(f"golden backward: largest relative error {worst:.3g}", file=sys.stderr)
    if not worst <= TOLERANCE:
        sys.exit(f"gradients differ from the golden by {worst:.3g} > {TOLERANCE:.3g}.")
    if options.check:
        return
    step = Step(state, scan, options.batch, options.patch)
    step()
    print(json.dumps({"ready": True, "torch": torch.__version__, "blas": blas_name()}), flush=True)
    for _ in sys.stdin if options.serve else range(3):
        start = time.perf_counter()
        step()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
