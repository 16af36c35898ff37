"""Every kernel that the steps of ci/gpu launch: each step rehearsed, none taken on trust.

A step that does not come to its end in rehearsal, or that launches nothing and is not listed as one
that runs kernels of others alone, is a problem: what it launches is not known, so it cannot be said
to be compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

from gpu_recording import Form
from gpu_rehearse import Found, rehearse
from gpu_steps import Step

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
    """What each step launches on such a device, by name, found in so many processes at once."""
    with ThreadPoolExecutor(processes) as pool:
        found = pool.map(lambda step: apart(step, capability), steps)
        return {step.name: each for step, each in zip(steps, found, strict=True)}


def apart(step: Step, capability: tuple[int, int]) -> Found:
    """Rehearse in a process of its own, which has imported what this one has."""
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def child() -> None:
        writer.send(rehearse(step, capability))

    process = context.Process(target=child)
    process.start()
    writer.close()
    try:
        found: Found = reader.recv()
    except EOFError:
        found = Found(problem="its process died")
    process.join()
    return found


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
