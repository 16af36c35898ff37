"""What would be launched, without launching it: a list of kernels with their arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.decoder.config import DecoderConfig
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels import launch as launcher
from kvparity_kernels.digest import row_digest
from kvparity_kernels.order import ReductionOrder

Launch = tuple[Any, dict[str, Any]]
"""A kernel, and its arguments and options by name."""


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Note what would be launched instead of launching it."""
    seen: list[Launch] = []
    real = launcher.launch

    def note(kernel: Any, grid: Any, /, *values: Any, num_warps: int = 4, num_stages: int = 2,
             **named: Any) -> None:  # fmt: skip
        arguments = {**dict(zip(kernel.parameters, values, strict=False)), **named}
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}
        if 0 not in grid:
            seen.append((kernel, arguments | options))

    launcher.launch = note
    try:
        yield seen
    finally:
        launcher.launch = real


def key(kernel: Any, arguments: dict[str, Any]) -> str:
    """The same for two launches of one compiled form."""
    facts = [kernel.name]
    for name, value in sorted(arguments.items()):
        kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        constant = name not in kernel.pointers | kernel.scalars
        facts.append(f"{name}={value if constant else kind}")
    return "; ".join(facts)


def decoder(
    config: DecoderConfig, order: ReductionOrder, execution: str, cache: str
) -> list[Launch]:
    """One layer of a decoder without weights, its head, its logprobs and their digests."""
    config = replace(config, layers=1)
    weights = seeded(config, 0, getattr(torch, execution), torch.device("meta"))
    subject = DecoderSubject(config, weights, kv_cache=getattr(torch, cache), order=order)
    session = subject.session([Member("a", 6, 3)], Layout())
    with recorded() as seen:
        for step in ((Span(0, 0, 4, 3),), (Span(0, 4, 5, 4, decode=True),)):
            for rows in session.forward(step, [[0] * (step[0].stop - step[0].start)]):
                targets = torch.zeros(len(rows), dtype=torch.int64, device="meta")
                subject.values(rows, targets, [1.0])
                row_digest(rows)
    return seen
