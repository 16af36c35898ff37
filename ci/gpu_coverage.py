"""Every kernel that the steps of ci/gpu launch: each step rehearsed, none taken on trust.

A step that does not come to its end in rehearsal, or that launches nothing and is not listed as one
that runs kernels of others alone, is a problem: what it launches is not known, so it cannot be said
to be compiled.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from gpu_recording import Form
from gpu_rehearse import Found, rehearse
from gpu_steps import Step

LIMIT_S = 600  # of one rehearsal: far more than any takes

OTHERS = frozenset(
    {"compile", "order-flashinfer"}
    | {
        f"order-sdpa-{backend}"
        for backend in ("flash-bfloat16", "efficient-bfloat16", "math-bfloat16", "cudnn-bfloat16",
                        "efficient-float32")
    }
)  # fmt: skip
"""Steps that launch no kernel of this project: PyTorch's and FlashInfer's are compiled by them."""


def recorded(
    steps: Sequence[Step], capability: tuple[int, int], processes: int
) -> dict[str, Found]:
    """What each step launches on such a device, by name, found in so many processes at once.

    A step is rehearsed in a process of its own, which has imported what this one has.
    """
    context = get_context("fork")
    waiting, found = list(steps), dict[str, Found]()
    running: dict[Connection, tuple[Step, BaseProcess, float]] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            step = waiting.pop(0)
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_send, args=(writer, step, capability))
            process.start()
            writer.close()
            running[reader] = (step, process, time.monotonic() + LIMIT_S)
        ready = wait(list(running), timeout=1)
        for reader in list(running):
            step, process, end = running[reader]
            if reader in ready:
                try:
                    found[step.name] = reader.recv()
                except EOFError:
                    found[step.name] = Found(problem="its process died")
            elif time.monotonic() > end:
                process.kill()
                found[step.name] = Found(problem=f"it takes longer than {LIMIT_S} s")
            else:
                continue
            process.join()
            del running[reader]
    return {step.name: found[step.name] for step in steps}


def _send(writer: Connection, step: Step, capability: tuple[int, int]) -> None:
    writer.send(rehearse(step, capability))


def problems(steps: Sequence[Step], found: Mapping[str, Found]) -> list[str]:
    """Why the forms that were found may not be all, in sentences."""
    told = []
    for step in steps:
        each = found[step.name]
        if each.absent or (each.problem and any(words in each.said for words in step.may_lack)):
            continue
        if each.problem:
            last = (each.said.strip().splitlines() or ["it said nothing"])[-1]
            told.append(f"{step.name}: its launches are not known: {each.problem}: {last[-500:]}")
        elif not each.forms and step.name not in OTHERS:
            told.append(
                f"{step.name}: it launched no kernel; expected some, or the step among OTHERS"
            )
    return told


def left_out(found: Mapping[str, Found], compiled: frozenset[Form]) -> dict[str, list[str]]:
    """The forms of each step that are not among the compiled ones; empty if there is none."""
    missing = {name: sorted(map(str, each.forms - compiled)) for name, each in found.items()}
    return {name: forms for name, forms in missing.items() if forms}
