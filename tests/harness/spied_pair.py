"""Steps of a pair whose kernels keep what they are given, and a listener."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from engine_calls import setting
from torch import Tensor

from kvparity.plan.schedule import Member, Span
from kvparity.subjects import events
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.store import StoreFormat

SHAPE = {"query": 2, "kv": 1, "dim": 8}


MEMBERS = tuple(Member(name, 8, 3) for name in "abc")


@dataclass
class Spy:
    """Kernels that keep what they are given, return zeros, and may add a number to some rows."""

    lse: tuple[bool, bool] = (True, True)
    nobody: float = 0.0
    given: list[dict[str, Any]] = field(default_factory=list)

    def kernel(self, which: int) -> Any:
        def call(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
            self.given.append({"q": q, "k": k, "v": v, "kind": "pd"[which], **more})
            out = torch.zeros_like(q)
            lse = torch.full(q.shape[:2], -torch.inf)
            if which and self.nobody:
                out[more["kv_lens"] == 0] += self.nobody
            return (out, lse) if self.lse[which] else out

        return call

    def subject(self, store: str = "float32", **more: Any) -> AttentionSubject:
        found, format = setting(["decode"], heads=SHAPE).subject, StoreFormat.parse(store)
        assert isinstance(found, AttentionSubject)
        return replace(
            found.with_pair(Pair.of(self.kernel(0), self.kernel(1), "p", "d")),
            format=format if format.dynamic or format.static else None,
            kv_cache=format.storage_dtype,
            **more,
        )


def prefill(sequence: int, stop: int, start: int = 0) -> Span:
    return Span(sequence, start, stop, start)


def decode(sequence: int, at: int) -> Span:
    return Span(sequence, at, at + 1, at, decode=True)


def ids(*spans: Span) -> list[list[int]]:
    return [[0] * (each.stop - each.start) for each in spans]


def run(session: Any, *spans: Span) -> list[Tensor]:
    return list(session.forward(spans, ids(*spans)))


@dataclass
class Ear:
    seen: list[events.Attended] = field(default_factory=list)

    def wrote(self, event: events.Wrote) -> None: ...

    def wants(self, sequence: int, positions: range) -> range:
        return positions

    def attended(self, event: events.Attended) -> None:
        self.seen.append(event)
