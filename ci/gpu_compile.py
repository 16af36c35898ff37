"""Compile every kernel that the steps of ci/gpu launch.

    python ci/gpu_compile.py               for the device that is here; its cache is warm then
    python ci/gpu_compile.py sm_80 sm_90   for GPUs that need not be here

What they launch is found by running each step on a pretended device (``gpu_rehearse``), so a new
step is covered as soon as it is a step; one that cannot be rehearsed is an error. Triton compiles
as it does at a launch (``warmup``), in several processes. One JSON document is printed last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import gpu_rehearse  # settles the path and the mode, so it comes first
from gpu_building import build_all
from gpu_coverage import left_out, problems, recorded
from gpu_rehearse import Found
from gpu_steps import STEPS, Step

from kvparity.relations.audit.request import ARCHITECTURES
from kvparity_kernels import rules

MOST_PROCESSES = 12
WITH_ITS_OWN = ("tiles",)
"""Steps that compile in processes of their own what no other step launches: on the device, where
time is short, that is left to them."""


def here() -> int:
    """The capability of this machine's device, asked in a process that may start CUDA."""
    with get_context("spawn").Pool(1) as pool:
        major, minor = pool.apply(gpu_rehearse.torch.cuda.get_device_capability)
    return int(10 * major + minor)


def compiled(
    steps: Sequence[Step], capabilities: Sequence[int], processes: int, *, count: bool = False
) -> dict[str, Any]:
    """Record and compile (``count``: record alone); the document."""
    began = time.monotonic()
    say(f"running {len(steps)} steps on a pretended device to see what they launch")
    by_rules: dict[tuple[Any, ...], dict[str, Found]] = {}
    work, errors, counts = {}, [], {}
    for capability in capabilities:
        # Which tiles are in force is all that a launch asks of an architecture.
        key = tiles_in_force(capability)
        if key not in by_rules:
            by_rules[key] = recorded(steps, divmod(capability, 10), processes)
            errors += problems(steps, by_rules[key])
        found = by_rules[key]
        forms = frozenset(form for each in found.values() for form in each.forms)
        work |= {(form, capability): None for form in forms}
        counts = {name: len(each.forms) for name, each in found.items()}
        if missing := left_out(found, frozenset(form for form, to in work if to == capability)):
            errors.append(f"sm_{capability}: not compiled: {missing}")
    recording = time.monotonic() - began
    verb = "counted" if count else f"to be compiled by {processes} processes"
    say(f"{len(work)} kernels found in {recording:.0f} s, {verb}")
    errors += [] if count else build_all(list(work), processes)
    return {
        "verdict": "error" if errors else "counted" if count else "compiled",
        "kernels": {f"sm_{c}": sum(to == c for _, to in work) for c in capabilities},
        "distinct_by_step": counts,
        "absent": {n: f.absent for each in by_rules.values() for n, f in each.items() if f.absent},
        "errors": errors,
        "recording_s": round(recording, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def say(line: str) -> None:
    """Tell a person how far it is; the document is alone on stdout."""
    print(f"compile: {line}", file=sys.stderr, flush=True)


def tiles_in_force(capability: int) -> tuple[Any, ...]:
    """The tiles of every format on an architecture with the Triton that is here."""
    import triton

    version = ".".join(triton.__version__.split(".")[:2])
    formats = ("float32", "float16", "bfloat16")
    return tuple(rules.in_force(f"sm_{capability}", version, name) for name in formats)


def main() -> int:
    """Compile; exit 1 if a kernel does not compile or may be missing."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archs", nargs="*", metavar="ARCH", help=", ".join(ARCHITECTURES))
    parser.add_argument("--steps", nargs="+", choices=names, help="of these steps alone")
    parser.add_argument("--count", action="store_true", help="count kernels and compile none")
    args = parser.parse_args()
    if unknown := set(args.archs) - set(ARCHITECTURES):
        parser.error(f"unknown: {', '.join(unknown)}; expected of {', '.join(ARCHITECTURES)}")
    wanted = args.steps or [n for n in names if args.archs or n not in WITH_ITS_OWN]
    capabilities = [ARCHITECTURES[arch] for arch in args.archs] or [here()]
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    steps = [step for step in STEPS if step.name in wanted]
    document = compiled(steps, capabilities, processes, count=args.count)
    print(json.dumps(document))
    return 1 if document["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
