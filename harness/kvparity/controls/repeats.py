"""Defects that show between processes, or between two runs in one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from kvparity.controls.base import PlantedSession, each_session
from kvparity.plan.schedule import Step
from kvparity.subjects.base import Session, Subject

_opened = 0
"""How many planted sessions this process has had."""


class _Stirred(PlantedSession):
    """Every value of a row is scaled by a number of its own, by a seed."""

    def __init__(self, inner: Session, seed: int) -> None:
        super().__init__(inner)
        self.random = torch.Generator().manual_seed(seed & (2**63 - 1))

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        for rows in self.inner.forward(step, ids):
            factors = 1 + torch.rand(rows.shape, generator=self.random)
            yield rows * factors.to(rows.device, rows.dtype)


def _stirred(seed: Callable[[], int]) -> Callable[[Subject], Subject]:
    return each_session(lambda session: _Stirred(session, seed()))


def bits_by_chance(subject: Subject) -> Subject:
    """Numbers that nobody can draw again: turboderp-org/exllamav3#353."""
    return _stirred(lambda: int.from_bytes(os.urandom(7), "big"))(subject)


def bits_by_process(subject: Subject) -> Subject:
    """By the hash seed and the id of the process: vllm-project/vllm#51875."""
    return _stirred(lambda: hash((str(os.getpid()), "bits")))(subject)


def bits_by_history(subject: Subject) -> Subject:
    """By how much ran in this process before: syv-ai/qwen38-27b-rtx3090#75."""

    def count() -> int:
        global _opened
        _opened += 1
        return _opened

    return _stirred(count)(subject)
