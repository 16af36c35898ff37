"""Defects of scoring: equal logits, other logprobs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity.controls.base import PlantedSubject
from kvparity.subject import Subject


class _TemperatureIgnored(PlantedSubject):
    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        return self.inner.values(rows, targets, [1.0 for _ in temperatures])


class _LogOfSoftmax(PlantedSubject):
    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        columns = [
            torch.softmax(rows.float() / t, dim=-1).gather(1, targets[:, None]).log()
            for t in temperatures
        ]
        return torch.cat(columns, dim=1)


def temperature_ignored(subject: Subject) -> Subject:
    """Logprobs at temperature 1, whatever the rollout sampled at."""
    return _TemperatureIgnored(subject)


def log_of_softmax(subject: Subject) -> Subject:
    """log(softmax(x)): two roundings where log_softmax has one."""
    return _LogOfSoftmax(subject)
