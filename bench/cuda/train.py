#!/usr/bin/env python3
"""RGT and OSRC on a GPU machine without Node, in parts: unpacks the archive of bench/cuda/pack.mjs
once and goes on with `spr2q quantize --device cuda --resume` until a time limit. Call it again until
it says that the run is done; the result is that of a run that was never stopped, to the bit.

    python3 train.py ARCHIVE [--work DIR] [--seconds 480] [--json FILE] [-- quantize options]

Quantize options default to the paper's budget on what the archive holds: --bits 4 --recipe best
--seed 0. Exit code: 0 done, 5 another part is needed, 2 no usable GPU, 1 anything else.
Needs Python 3.8 and nothing else; a driver for the GPU."""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

EXIT_FAILED, EXIT_NO_GPU, EXIT_MORE = 1, 2, 5
DEFAULTS = ["--bits", "4", "--recipe", "best", "--seed", "0"]
GRACE_SECONDS = 60  # for the checkpoint, after a part was asked to stop
LOOK_SECONDS = 0.01  # between two looks at the log, where a part ends by its steps


def unpack(archive, work):
    """The archive's files in `work`; done once for each archive."""
    stamp = work / "unpacked"
    mark = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
    if stamp.exists() and stamp.read_text() == mark:
        return
    with tarfile.open(archive) as files:
        files.extractall(work)
    stamp.write_text(mark)


def events_of(out):
    """Lines of the run's log; a last line that is cut short is left out."""
    path = out / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def steps_in(out):
    """Steps that the run's log tells of."""
    return sum(event.get("type") == "step" for event in events_of(out))


def step_milliseconds(events):
    """Mean of this part's RGT steps, or None: what is left, by the log, over the steps it is for."""
    for event in reversed(events):
        left = event.get("iterations", 0) - event.get("iteration", 0)
        if event.get("type") == "step" and event.get("stage") == "rgt" and left > 0:
            return round(1000 * event["secondsLeft"] / left, 3)
    return None


def run_part(work, out, options, limit, grace, steps):
    """
    One part, until `limit` seconds are over or the log has `steps` lines of steps more than before;
    (exit code, seconds of work, stderr).
    """
    model = work / "model" / (work / "model-name").read_text()
    command = [str(work / "node"), str(work / "dist/lib/cli/main.js"), "quantize"]
    command += ["--model", str(model), "--train", str(work / "train"), "--out", str(out)]
    command += ["--device", "cuda", "--resume", "--quiet", *options]
    os.chmod(work / "node", 0o755)
    began = time.monotonic()
    last = steps_in(out) + steps
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while True:
        left = max(0.0, limit - (time.monotonic() - began))
        try:
            _, errors = child.communicate(timeout=min(left, LOOK_SECONDS) if steps else left)
            break
        except subprocess.TimeoutExpired:
            if steps and left > LOOK_SECONDS and steps_in(out) < last:
                continue
        child.send_signal(signal.SIGINT)  # it writes a checkpoint and leaves
        try:
            _, errors = child.communicate(timeout=grace)
        except subprocess.TimeoutExpired:
            child.kill()
            _, errors = child.communicate()
            errors += f"\nno checkpoint within {grace} s: the last one stands"
        break
    return child.returncode, time.monotonic() - began, errors


def frame(work, result, size, runs):
    """Adds the time of a frame, where the archive holds a quantised model."""
    packed = work / "packed.safetensors"
    if not packed.exists():
        return
    command = [str(work / "node"), str(work / "bench/cuda/frame.mjs"), str(packed)]
    command += [*size.split("x"), "--runs", str(runs)]
    found = subprocess.run(command, capture_output=True, text=True)
    result["frame"] = json.loads(found.stdout) if found.returncode == 0 else found.stderr.strip()


def parse():
    own, more = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, more = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work", type=Path, default=Path("spr2q-gpu"), help="default ./spr2q-gpu")
    parser.add_argument("--seconds", type=float, default=480, help="of a part, default 480")
    parser.add_argument("--steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help=argparse.SUPPRESS)
    parser.add_argument("--frame", default="320x180", help="input of the timed frame, WxH")
    parser.add_argument("--runs", type=int, default=30, help="timed frames, default 30")
    parser.add_argument("--json", type=Path, help="writes what this part did")
    return parser.parse_args(own), more or DEFAULTS


def main():
    options, quantize = parse()
    began = time.monotonic()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    unpack(options.archive, work)
    out = work / "run"
    before = events_of(out)
    left = max(1.0, options.seconds - (time.monotonic() - began))
    code, seconds, errors = run_part(work, out, quantize, left, options.grace, options.steps)
    after = events_of(out)
    last = next((e for e in reversed(after) if e.get("type") == "step"), None)
    result = {"exit": code, "seconds": round(seconds, 2), "options": quantize}
    if last:
        result["at"] = f"{last['stage']} {last['iteration']} of {last['iterations']}"
    result["stepMs"] = step_milliseconds(after[len(before) :])
    status = EXIT_FAILED
    if code == 0:
        model = out / "model.safetensors"
        result["sha256"] = hashlib.sha256(model.read_bytes()).hexdigest()
        frame(work, result, options.frame, options.runs)
        status = 0
    elif code == 130 or code == -signal.SIGKILL:
        status = EXIT_MORE
    elif "ERR_GPU_UNAVAILABLE" in errors:
        status = EXIT_NO_GPU
    if status in (EXIT_FAILED, EXIT_NO_GPU):
        print(errors.strip(), file=sys.stderr)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
