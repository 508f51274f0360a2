#!/usr/bin/env python3
"""The CUDA backend on a GPU, without Node: builds libspr2q_cuda.so, checks every op against the
double-precision references, runs compute-sanitizer where it is installed, and times the hot
kernels by events over graph replays, PyTorch beside them. Ends within ten minutes.

    python3 bench/cuda/bench.py [--json FILE] [--check-only] [--library FILE]

Needs Python 3.9, numpy, g++, CMake and the CUDA toolkit (12.8 or newer); PyTorch for its peers.
Exit code: 0 all good, 1 a check failed, 2 no usable GPU, 3 nothing to run (no library, no
compiler), 4 a floor was missed. --library takes a built library, also the shim of
npm run test:cuda: the checks then run on this processor and nothing is timed."""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXIT_FAILED, EXIT_NO_GPU, EXIT_NOTHING, EXIT_FLOOR = 1, 2, 3, 4
BUDGET_SECONDS = 570
SANITIZER_SECONDS = 150

try:
    import numpy as np
except ImportError:
    print("ERR_NO_NUMPY: bench.py needs numpy: python3 -m pip install numpy", file=sys.stderr)
    sys.exit(EXIT_NOTHING)

import cases  # noqa: E402
from tables import ROOT, Backend, Cuda, CudaError  # noqa: E402

STARTED = time.monotonic()


def seconds_left():
    return BUDGET_SECONDS - (time.monotonic() - STARTED)


def give_up(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


def present_architectures():
    """Of the GPUs that nvidia-smi shows, for CMake, as in 89-real; empty where it shows none."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    if not shutil.which(command[0]):
        return ""
    found = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return ";".join(sorted({f"{cap.replace('.', '')}-real" for cap in found if cap[:1].isdigit()}))


def build_library():
    """Builds libspr2q_cuda.so for the GPUs that are here, or for all that it supports."""
    if not shutil.which("nvcc") or not shutil.which("cmake"):
        give_up(EXIT_NOTHING, "ERR_NO_NVCC: nvcc and cmake are needed, or --library FILE")
    folder = ROOT / "build-cuda-bench"
    configure = ["cmake", "-S", str(ROOT / "native" / "cuda"), "-B", str(folder)]
    configure.append(f"-DSPR2Q_CUDA_OUTPUT={folder}")
    configure.append(f"-DCMAKE_CUDA_ARCHITECTURES={present_architectures()}")
    for command in (configure, ["cmake", "--build", str(folder), "--parallel"]):
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            give_up(EXIT_NOTHING, "ERR_BUILD: libspr2q_cuda.so could not be built")
    return folder / "libspr2q_cuda.so"


def build_reference(folder):
    """The references of native/ops as a library: g++, contraction off."""
    output = Path(folder) / "libspr2q_reference.so"
    sources = [str(Path(__file__).with_name("reference.cpp"))]
    sources += [str(path) for path in sorted((ROOT / "native" / "ops").glob("*.cpp"))]
    flags = ["-std=gnu++17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC"]
    if subprocess.run(["g++", *flags, *sources, "-o", str(output)]).returncode != 0:
        give_up(EXIT_NOTHING, "ERR_BUILD: the references could not be built with g++")
    entry = ctypes.CDLL(str(output)).spr2q_reference
    entry.restype = ctypes.c_void_p
    return Backend(entry())


# ---- Checks ------------------------------------------------------------------------------------


def views_of(fields, addresses, arrays):
    """The fields of a call with (address, count) for the name of an array, in lists too."""

    def view(value):
        if isinstance(value, list):
            return [view(item) for item in value]
        return (addresses[value], arrays[value].size) if isinstance(value, str) else value

    return {field: view(value) for field, value in fields.items()}


def run_on_host(table, case):
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    for op, fields in case.calls:
        table.call(op, **views_of(fields, addresses, arrays))
    return arrays


def run_on_device(cuda, case):
    places = {name: cuda.new(array.nbytes) for name, array in case.arrays.items()}
    try:
        for name, array in case.arrays.items():
            cuda.copy_in(places[name], array.ctypes.data, array.nbytes)
        for op, fields in case.calls:
            cuda.backend.call(op, **views_of(fields, places, case.arrays))
            cuda.check()
        results = {name: array.copy() for name, array in case.arrays.items()}
        for name, array in results.items():
            cuda.copy_out(array.ctypes.data, places[name], array.nbytes)
        return results
    finally:
        for place in places.values():
            cuda.release(place)


def disagreement(got, expected, tolerance):
    """What is wrong with a result, or nothing; and its error."""
    if tolerance is cases.EXACT:
        differing = int(np.count_nonzero(got.view(np.uint8) != expected.view(np.uint8)))
        return (f"{differing} bytes differ" if differing else ""), float(differing > 0)
    limit, share = tolerance if isinstance(tolerance, tuple) else (tolerance, 0.0)
    scale = max(float(np.max(np.abs(expected), initial=0.0)), 1e-30)
    errors = np.abs(got.astype(np.float64) - expected.astype(np.float64)) / scale
    outside = float(np.mean(~(errors <= limit)))
    text = f"{100 * outside:.3f} % beyond {limit:g}" if outside > share else ""
    return text, float(np.max(errors, initial=0.0))


def check_all(cuda, reference):
    failures, covered, count = [], set(), 0
    for case in cases.every_case():
        count += 1
        covered |= {op for op, _ in case.calls}
        expected = run_on_host(reference, case)
        got, again = run_on_device(cuda, case), run_on_device(cuda, case)
        for name, tolerance in case.expect.items():
            text, error = disagreement(got[name], expected[name], tolerance)
            if text:
                failures.append(f"{case.name}: {name}: {text} (largest error {error:.2g})")
            if got[name].tobytes() != again[name].tobytes():
                failures.append(f"{case.name}: {name}: a rerun gives other bits")
    for op in set(reference.ops) - covered:
        failures.append(f"{op}: no case covers it")
    ops = f"{len(covered)} of {len(reference.ops)} ops"
    print(f"checks: {count} cases, {ops}, {len(failures)} failures")
    for line in failures:
        print(f"  FAIL {line}")
    return not failures


def sanitize(library):
    """compute-sanitizer's memcheck and racecheck over the checks, in a process of its own."""
    tool = shutil.which("compute-sanitizer")
    if not tool:
        print("compute-sanitizer: not installed, not run")
        return True
    good = True
    for kind in ("memcheck", "racecheck"):
        limit = min(SANITIZER_SECONDS, seconds_left() - 180)
        if limit < 30:
            print(f"compute-sanitizer {kind}: not run, no time is left for it")
            continue
        command = [tool, "--tool", kind, "--error-exitcode", "9", sys.executable, __file__]
        command += ["--check-only", "--no-sanitizer", "--library", str(library)]
        try:
            status = subprocess.run(command, timeout=limit, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            print(f"compute-sanitizer {kind}: stopped after {limit:.0f} s without an error")
            continue
        good = good and status.returncode == 0
        print(f"compute-sanitizer {kind}: {'clean' if status.returncode == 0 else 'FAILED'}")
        if status.returncode != 0:
            print("\n".join(status.stdout.splitlines()[-30:]))
    return good


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", help="writes machine, rows and checks to this file")
    parser.add_argument("--library", help="a built library instead of building one")
    parser.add_argument("--check-only", action="store_true", help="no timings")
    parser.add_argument("--no-sanitizer", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def open_cuda(options):
    library = Path(options.library) if options.library else build_library()
    try:
        cuda = Cuda(library.resolve())
    except (OSError, CudaError) as error:
        give_up(EXIT_NOTHING, f"ERR_CUDA_BAD_LIBRARY: {error}")
    try:
        devices = cuda.devices()
        if not devices:
            give_up(EXIT_NO_GPU, "ERR_CUDA_NO_DEVICE: the driver shows no GPU; nothing was run")
        cuda.use_device(0)
    except CudaError as error:
        give_up(EXIT_NO_GPU, f"{error}; nothing was run")
    return library, cuda, devices[0]


def main():
    options = parse()
    library, cuda, device = open_cuda(options)
    name = device.name.decode()
    print(f"device: {name}, sm_{device.architecture}, {device.memory_bytes / 2**30:.1f} GiB")
    with tempfile.TemporaryDirectory() as folder:
        good = check_all(cuda, build_reference(folder))
    if not options.no_sanitizer and not cuda.host_memory:
        good = sanitize(library.resolve()) and good
    rows = []
    if not options.check_only and not cuda.host_memory:
        import timing

        rows = timing.measure(cuda, device, seconds_left)
        timing.show(rows)
    elif cuda.host_memory:
        print("timings: not run, the library computes on this processor")
    if options.json:
        report = {
            "machine": {"device": name, "architecture": device.architecture},
            "checks": good,
            "rows": rows,
            "seconds": round(time.monotonic() - STARTED, 1),
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + os.linesep)
    if not good:
        sys.exit(EXIT_FAILED)
    if any(row.get("missed") for row in rows):
        sys.exit(EXIT_FLOOR)


if __name__ == "__main__":
    main()
