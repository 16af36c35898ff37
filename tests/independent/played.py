"""A language model behind the seam that plays rows and caches from tables of raw tensors.

What a path gives is in the table of that path, so that the independent scripts can be handed the
same tensors, and a fault can be planted in any one place of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.subjects import events

VOCAB, LAYERS, HEADS, DIM = 24, 3, 4, 2
PROMPTS = ((3, 1, 4), (15,), (9, 2, 6, 5, 3, 5))
GENERATED = 4
TEMPERATURES = (1.0, 0.7)
PATHS = ("prefill", "decode", "batched", "padded-left")
INDEX = tuple(
    (s, p) for s, own in enumerate(PROMPTS) for p in range(len(own) - 1, len(own) + GENERATED - 1)
)
"""(sequence, position) of the compared rows, in the order of every table."""
LENGTHS = tuple(len(own) + GENERATED for own in PROMPTS)
STARTS = tuple(sum(LENGTHS[:s]) for s in range(len(LENGTHS)))
POSITIONS = sum(LENGTHS)


@dataclass
class Cached:
    """Float32 ``k``, ``v`` ``[layers, positions, heads, dim]``, and which of them are ``there``."""

    k: Tensor
    v: Tensor
    there: Tensor

    def copy(self) -> Cached:
        return Cached(self.k.clone(), self.v.clone(), self.there.clone())

    def raw(self) -> dict[str, Any]:
        """What a script is given."""
        return {"k": self.k.numpy(), "v": self.v.numpy(), "there": self.there.numpy()}


@dataclass
class Tables:
    """By path the logits float32 ``[rows, vocab]``, and what is written to its cache and read.

    ``exact``: the float64 logits.
    """

    rows: dict[str, Tensor]
    exact: Tensor
    written: dict[str, Cached]
    held: dict[str, Cached] = field(default_factory=dict)

    @classmethod
    def equal(cls, seed: int) -> Tables:
        """Tables in which every path gives the same, close to float64."""
        random = torch.Generator().manual_seed(seed)
        exact = 3 * torch.randn(len(INDEX), VOCAB, generator=random, dtype=torch.float64)
        exact[:, VOCAB - 1] = -60.0  # a column of which no logprob of another one knows
        exact[:, VOCAB - 2] = 0.0
        noise = torch.randn(exact.shape, generator=random, dtype=torch.float64)
        noise[:, VOCAB - 2 :] = 0.0
        rows = (exact + 1e-4 * noise).float()
        shape = (LAYERS, POSITIONS, HEADS, DIM)
        k, v = (torch.randn(shape, generator=random) for _ in "kv")
        there = torch.ones(shape[:2], dtype=torch.bool)
        for start, length in zip(STARTS, LENGTHS, strict=True):
            there[:, start + length - 1] = False  # a rollout does not feed its last token back
        whole = Cached(k, v, torch.ones_like(there))
        written = {path: whole.copy() if path == "prefill" else Cached(k, v, there).copy()
                   for path in PATHS}  # fmt: skip
        held = {path: each.copy() for path, each in written.items()}
        return cls({path: rows.clone() for path in PATHS}, exact, written, held)


class PlayedCache:
    """Reads what the table of the session's path says, wherever the schedule has come to."""

    def __init__(self, session: PlayedSession) -> None:
        self.session = session

    @property
    def held(self) -> Cached:
        return self.session.tables.held[self.session.path]

    def layers(self) -> int:
        return LAYERS

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        part = slice(STARTS[sequence] + start, STARTS[sequence] + stop)
        return self.held.k[layer, part].clone(), self.held.v[layer, part].clone()

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        raise NotImplementedError("no defect is planted here")

    def live(self, layer: int, sequence: int) -> range:
        own = self.held.there[layer, STARTS[sequence] :][: LENGTHS[sequence]]
        where = own.nonzero().flatten().tolist()
        return range(where[0], where[-1] + 1) if where else range(0)

    def window(self, layer: int) -> int | None:
        return None

    def owner(self, model_layer: int) -> int:
        return model_layer

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def truncate(self, sequence: int, length: int) -> None:
        raise NotImplementedError("no row is computed twice here")


class PlayedSession:
    """Gives the rows of its path, whatever the ids are."""

    def __init__(self, tables: Tables, members: Sequence[Member], layout: Layout) -> None:
        self.tables, self.members, self.layout = tables, members, layout
        self.path, self.counts = "decode", Counter[str]()

    def _path(self, step: Step) -> str:
        if self.layout.batch == "left":
            return "padded-left"
        if len(self.members) > len(PROMPTS):  # strangers
            return "batched"
        whole = len(step) == 1 and step[0].stop - step[0].start == LENGTHS[step[0].sequence]
        return "prefill" if whole else "decode"

    def _write(self, span: Span) -> None:
        listener = events.current()
        if listener is None or span.sequence >= len(PROMPTS):
            return
        own = self.tables.written[self.path]
        part = slice(STARTS[span.sequence] + span.start, STARTS[span.sequence] + span.stop)
        for layer in range(LAYERS):
            told = own.k[layer, part], own.v[layer, part]
            listener.wrote(events.Wrote(layer, span.sequence, span.start, *told))

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        self.path = self._path(step)
        for span in step:
            self.counts["attention.decode" if span.decode else "attention.prefill"] += 1
            self._write(span)
            for position in span.rows:
                row = INDEX.index((span.sequence, position))
                yield self.tables.rows[self.path][row : row + 1].clone()

    def observed(self) -> Counter[str]:
        return Counter(self.counts)

    def cache(self) -> PlayedCache:
        return PlayedCache(self)


class Played:
    """The subject: its logprobs are computed in float64 and rounded once."""

    vocab, max_positions, device = VOCAB, 64, torch.device("cpu")

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def unsupported(self, plan: Plan) -> str | None:
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> PlayedSession:
        return PlayedSession(self.tables, members, layout)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        scored = [torch.log_softmax(rows.double() / t, dim=-1) for t in temperatures]
        return torch.cat([each.gather(1, targets[:, None]) for each in scored], dim=1).float()

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        sequence = int(member.id.rpartition("/")[2])
        return torch.stack([self.tables.exact[INDEX.index((sequence, p))] for p in rows])

    def describe(self, ran: Counter[str] | None = None) -> Mapping[str, Any]:
        return {"kind": "played"}
