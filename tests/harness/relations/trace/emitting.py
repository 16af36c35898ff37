"""A small subject that tells what it attends to, with defects that can be switched on.

Queries, keys and values are drawn per (sequence, layer, position told), so that layers are
independent and a defect stays where it was planted. Layers 0 and 1 own their stores; layer 2
follows layer 1. Layer 0 sees a window of ``WINDOW`` keys, layer 1 and its follower see all.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.subjects import events

Q_HEADS, KV_HEADS, DIM = 4, 2, 16
WINDOW, OWNERS, WINDOWS = 6, (0, 1, 1), (6, None)
VOCAB = 128
SCALE = DIM**-0.5

DEFECTS = (
    "position-stays",  # decode is told position 0
    "told-ahead",  # every row is told the place after its own
    "computed-elsewhere",  # rows say that they were computed one place on
    "length-short",
    "window-short",
    "first-late",  # the keys are given as those of one position on
    "wrong-donor",  # the follower reads layer 0
    "stale-slot",  # one key of layer 1 is another one's
    "narrow-store",
    "missing-key",  # the kernel leaves a middle key out that it was given
    "uniform",
    "scale-lost",  # the same, and the kernel was told so
    "no-lse",
    "wrong-out",
    "nan-key",
    "silent-layer",
    "twin-layers",  # both stores hold the same
    "surplus",
)


class Cache:
    """Float32 stores by (layer, sequence), a list of positions each; satisfies LayeredCache."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.k = [torch.full((len(members), self._longest(), KV_HEADS, DIM), torch.nan)] * 2
        self.k = [t.clone() for t in self.k]
        self.v = [t.clone() for t in self.k]

    def _longest(self) -> int:
        return max(m.length for m in self.members)

    def layers(self) -> int:
        return 2

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return self.k[layer][sequence, start:stop], self.v[layer][sequence, start:stop]

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        self.k[layer][sequence, start : start + len(k)] = k
        self.v[layer][sequence, start : start + len(v)] = v

    def live(self, layer: int, sequence: int) -> range:
        return range(self.members[sequence].length)

    def window(self, layer: int) -> int | None:
        return WINDOWS[layer]

    def owner(self, model_layer: int) -> int:
        return OWNERS[model_layer]

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def truncate(self, sequence: int, length: int) -> None:
        raise NotImplementedError


class Session:
    """Computes spans one by one, and tells of the rows that somebody wants."""

    def __init__(self, subject: Emitting, members: Sequence[Member]) -> None:
        self.subject, self.members = subject, members
        self._cache = Cache(members)
        self._counts: Counter[str] = Counter()

    def cache(self) -> Cache:
        return self._cache

    def observed(self) -> Counter[str]:
        return Counter(self._counts)

    def reset(self) -> None:
        for tensor in (*self._cache.k, *self._cache.v):
            tensor.fill_(torch.nan)

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        for layer in range(2):
            self._cache.write(layer, sequence, 0, *self._cache.read(layer, donor, 0, tokens))

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        for span, known in zip(step, ids, strict=True):
            self._counts["attention.decode" if span.decode else "attention.prefill"] += 1
            rows = self._span(span, known)
            if len(span.rows):
                yield rows[span.rows.start - span.start : span.rows.stop - span.start]

    def _span(self, span: Span, known: Sequence[int]) -> Tensor:
        defects, cache = self.subject.defects, self._cache
        listener = events.current()
        places = torch.arange(span.start, span.stop)
        told = places + span.position_shift + ("told-ahead" in defects)
        if "position-stays" in defects and span.decode:
            told = torch.zeros_like(told)
        q, result = [], torch.zeros(len(places), VOCAB)
        for layer in range(3):
            q.append(self._draw("q", layer, told, known, Q_HEADS))
            if layer < 2:
                kind = 0 if "twin-layers" in defects else layer
                k, v = (self._draw(n, kind, told, known, KV_HEADS) for n in "kv")
                if listener is not None:
                    listener.wrote(events.Wrote(layer, span.sequence, span.start, k, v))
                if "narrow-store" in defects:
                    k, v = k.bfloat16().float(), v.bfloat16().float()
                cache.write(layer, span.sequence, span.start, k, v)
                if "stale-slot" in defects and layer == 1 and span.start > 3:
                    cache.write(1, span.sequence, 2, *cache.read(1, span.sequence, 1, 2))
                if "nan-key" in defects and span.start > 3:
                    cache.k[layer][span.sequence, span.start - 1] = torch.nan
        wanted = [] if listener is None else listener.wants(span.sequence, places.tolist())
        for layer, number in ((a, b) for a in range(3) for b in range(len(places))):
            place = int(places[number])
            event = self._row(q[layer][number], layer, span, place, int(told[number]))
            result[number] += event.out.flatten().repeat(VOCAB // event.out.numel())
            silent = "silent-layer" in defects and layer == 2 and span.decode
            if listener is not None and place in wanted and not silent:
                listener.attended(event)
                if "surplus" in defects and span.decode:
                    listener.attended(event)
        return result

    def _draw(self, kind: str, layer: int, told: Tensor, ids: Sequence[int], heads: int) -> Tensor:
        rows = []
        for position, token in zip(told.tolist(), ids, strict=True):
            key = zlib.crc32(f"{kind}/{layer}/{position}/{token}".encode())
            random = torch.Generator().manual_seed(key)
            rows.append(torch.randn(heads, DIM, generator=random))
        return torch.stack(rows)

    def _row(self, q: Tensor, layer: int, span: Span, place: int, told: int) -> events.Attended:
        defects = self.subject.defects
        owner = 0 if "wrong-donor" in defects and layer == 2 else OWNERS[layer]
        window = WINDOWS[OWNERS[layer]] or place + 1
        if "window-short" in defects and span.decode and layer == 0:
            window -= 1
        first = max(0, place + 1 - window)
        k, v = self._cache.read(owner, span.sequence, first, place + 1)
        used_k, used_v = k, v
        if "missing-key" in defects and len(k) > 4:
            keep = [i for i in range(len(k)) if i != 2]
            used_k, used_v = k[keep], v[keep]
        scale = 0.0 if {"uniform", "scale-lost"} & defects else SCALE
        out, lse = attend(q, used_k, used_v, scale)
        if "wrong-out" in defects:
            out = out + 1e-3
        return events.Attended(
            layer=layer,
            sequence=span.sequence,
            position=place + ("computed-elsewhere" in defects),
            told=told,
            length=place + 1 - ("length-short" in defects),
            first=first + ("first-late" in defects),
            q=q,
            k=k,
            v=v,
            out=out,
            lse=None if "no-lse" in defects else lse,
            scale=0.0 if "scale-lost" in defects else SCALE,
            decode=span.decode,
        )


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Float32 attention of one row: out ``[heads, dim]``, lse ``[heads]``."""
    group = len(q) // k.shape[1]
    k, v = (t.transpose(0, 1).repeat_interleave(group, 0) for t in (k, v))
    scores = torch.einsum("hd,hnd->hn", q, k) * scale
    lse = torch.logsumexp(scores, 1)
    return torch.einsum("hn,hnd->hd", torch.exp(scores - lse[:, None]), v), lse


class Emitting:
    """The subject."""

    def __init__(self, *defects: str) -> None:
        assert set(defects) <= set(DEFECTS), defects
        self.defects = frozenset(defects)
        self.vocab, self.max_positions = VOCAB, 4096
        self.device = torch.device("cpu")

    def unsupported(self, plan: Plan) -> str | None:
        return "no generate() loop" if plan.generate else None

    def session(self, members: Sequence[Member], layout: Layout) -> Session:
        return Session(self, members)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        columns = [torch.log_softmax(rows / t, -1) for t in temperatures]
        return torch.stack([c.gather(1, targets[:, None])[:, 0] for c in columns], 1)

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def describe(self, ran: Counter[str] | None = None) -> Mapping[str, Any]:
        return {"kind": "emitting", "requested": {}, "used": {}}
