"""Compile every kernel that the steps of ci/gpu launch.

    python -m gpu_steps.compile               for the device that is here; its cache is warm then
    python -m gpu_steps.compile sm_80 sm_90   for GPUs that need not be here

What they launch is the list of ``gpu_steps.kernels``. Triton compiles as it does at a launch, in
several processes. One JSON document is printed last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from tqdm import tqdm

from gpu_steps.kernels import of_step
from gpu_steps.steps import STEPS, Step
from kvparity.relations.audit.build import compile_launch
from kvparity.relations.audit.capture import Launch
from kvparity.relations.audit.request import ARCHITECTURES

MOST_PROCESSES = 12
_work: list[tuple[Launch, str]] = []  # what the processes share, which are copies of this one


def here() -> str:
    """The architecture of this machine's device, asked in a process that may start CUDA."""
    with get_context("spawn").Pool(1) as pool:
        major, minor = pool.apply(torch.cuda.get_device_capability)
    return f"sm_{major}{minor}"


def compiled(steps: Sequence[Step], archs: Sequence[str], processes: int) -> dict[str, object]:
    """List and compile; the document."""
    began = time.monotonic()
    kernels, by_step = {}, dict[str, int]()
    for arch in archs:
        found = {step.name: of_step(step, arch) for step in steps}
        kernels[arch] = {each.form: each for launches in found.values() for each in launches}
        by_step = {name: len(launches) for name, launches in found.items()}
    listing = time.monotonic() - began
    work = [(each, arch) for arch, forms in kernels.items() for each in forms.values()]
    print(f"compile: {len(work)} kernels, by {processes} processes", file=sys.stderr, flush=True)
    errors = compile_all(work, processes)
    return {
        "verdict": "error" if errors else "compiled",
        "kernels": {arch: len(forms) for arch, forms in kernels.items()},
        "distinct_by_step": by_step,
        "errors": errors,
        "recording_s": round(listing, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def compile_all(work: Sequence[tuple[Launch, str]], processes: int) -> list[str]:
    """Compile in so many processes, each taking what is next; what does not compile."""
    _work[:] = sorted(work, key=_weight)
    if not work:
        return []
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        results = pool.map(_compile, range(len(work)))
        hidden = not sys.stderr.isatty()
        return [e for e in tqdm(results, total=len(work), unit=" kernels", disable=hidden) if e]


def _compile(number: int) -> str | None:
    """Compile one into Triton's cache; why it does not compile, or None."""
    launch, arch = _work[number]
    try:
        compile_launch(launch, arch)
    except Exception as error:  # whatever Triton raises belongs to this kernel alone
        return f"{', '.join(launch.form)} for {arch}: {type(error).__name__}: {error}"[-2000:]
    return None


def _weight(item: tuple[Launch, str]) -> tuple[bool, int]:
    """What takes longest comes first: float32 matrices, and wide heads."""
    arguments = item[0].arguments
    dot, dim = arguments.get("Q", arguments.get("X")), arguments.get("D", 0)
    float32 = isinstance(dot, torch.Tensor) and dot.dtype == torch.float32
    return not float32, -dim if isinstance(dim, int) else 0


def main() -> int:
    """Compile; exit 1 if a kernel does not compile."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archs", nargs="*", metavar="ARCH", help=", ".join(ARCHITECTURES))
    parser.add_argument("--steps", nargs="+", choices=names, help="of these steps alone")
    args = parser.parse_args()
    archs = args.archs or [here()]
    if unknown := set(archs) - set(ARCHITECTURES):
        parser.error(f"unknown: {', '.join(unknown)}; expected of {', '.join(ARCHITECTURES)}")
    steps = [step for step in STEPS if step.name in (args.steps or names)]
    document = compiled(steps, archs, min(MOST_PROCESSES, len(os.sched_getaffinity(0))))
    print(json.dumps(document))
    return 1 if document["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
