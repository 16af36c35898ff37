"""A listener that keeps everything, and sessions of one sequence in spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from tiny_transformers import same_bits
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events

IDS = torch.randint(3, 128, (64,), generator=torch.Generator().manual_seed(1)).tolist()


@dataclass
class Everything:
    """A listener that wants all rows."""

    written: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    rows: list[events.Attended] = field(default_factory=list)

    def wrote(self, event: events.Wrote) -> None:
        for i, (k, v) in enumerate(zip(event.k, event.v, strict=True)):
            self.written[event.layer, event.start + i] = (k, v)

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        return positions

    def attended(self, event: events.Attended) -> None:
        self.rows.append(event)


def open_session(subject: Any, *lengths: int, **more: Any) -> Any:
    return subject.session([Member(f"m{i}", n, 1) for i, n in enumerate(lengths)], Layout(**more))


def run(session: Any, cuts: Sequence[int], sequence: int = 0) -> Tensor:
    """The rows of one sequence in spans between ``cuts``."""
    out = []
    for a, b in pairwise(cuts):
        out += list(session.forward((Span(sequence, a, b, rows_from=a),), [IDS[a:b]]))
    return torch.cat(out)


def written(heard: Everything, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    pairs = [heard.written[layer, p] for p in range(start, stop)]
    return torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs])


def equal(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return all(same_bits(x, y) for x, y in zip(a, b, strict=True))
