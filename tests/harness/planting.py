"""A session that keeps what it is told, and a cache of plain numbers by place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span, Step

Place = tuple[int, int, int]
"""Layer, sequence, position."""


def number(layer: int, sequence: int, position: int) -> float:
    """What is written there: no two places have the same, and bfloat16 holds none of them."""
    return 4097.0 + 1000 * layer + 100 * sequence + 2 * position


class Memory:
    """Numbers by place. A layer with a window keeps ``spare`` positions more than it shows."""

    def __init__(self, windows: Sequence[int | None], spare: int, dtype: torch.dtype) -> None:
        self.windows, self.spare, self.dtype = windows, spare, dtype
        self.held: dict[Place, tuple[float, float]] = {}
        self.filled: Counter[int] = Counter()

    def layers(self) -> int:
        return len(self.windows)

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        assert 0 <= start < stop <= self.filled[sequence]
        pairs = [self.held[layer, sequence, p] for p in range(start, stop)]
        k, v = torch.tensor(pairs, dtype=torch.float32).to(self.dtype).unbind(1)
        return k[:, None, None], v[:, None, None]

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        assert start >= 0
        for i in range(len(k)):
            self.held[layer, sequence, start + i] = (float(k[i, 0, 0]), float(v[i, 0, 0]))

    def live(self, layer: int, sequence: int) -> range:
        filled, window = self.filled[sequence], self.windows[layer]
        return range(0 if window is None else max(0, filled - window - self.spare), filled)

    def window(self, layer: int) -> int | None:
        return self.windows[layer]

    def owner(self, model_layer: int) -> int:
        return model_layer

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def truncate(self, sequence: int, length: int) -> None:
        self.filled[sequence] = length


class Told:
    """A subject whose sessions keep what they are told; ``opened`` holds their members."""

    vocab, max_positions, device = 10, 64, torch.device("cpu")

    def __init__(
        self, windows: Sequence[int | None] = (None, None), spare: int = 0,
        dtype: torch.dtype = torch.float32, block: int = 3, cached: bool = True,
    ) -> None:  # fmt: skip
        self.windows, self.spare, self.dtype, self.block = windows, spare, dtype, block
        self.cached = cached
        self.opened: list[tuple[list[Member], Layout]] = []
        self.sessions: list[ToldSession] = []
        self.asked: list[tuple[Tensor, list[float]]] = []

    def session(self, members: Sequence[Member], layout: Layout) -> ToldSession:
        self.opened.append((list(members), layout))
        self.sessions.append(ToldSession(self))
        return self.sessions[-1]

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        self.asked.append((rows, list(temperatures)))
        scaled = torch.stack([rows.double() / t for t in temperatures], dim=1)
        return (
            torch.log_softmax(scaled, -1)
            .gather(2, targets[:, None, None].expand(-1, len(temperatures), 1))[..., 0]
            .float()
        )

    def describe(self, ran: Any = None) -> dict[str, Any]:
        return {"kind": "told"}

    def unsupported(self, plan: Any) -> str | None:
        return None


class ToldSession:
    """Each computed position writes its number; each wanted row holds its position."""

    def __init__(self, subject: Told, scale: float = 1.0) -> None:
        self.subject, self.scale = subject, scale
        self.memory = Memory(subject.windows, subject.spare, subject.dtype)
        self.told: list[tuple[Step, list[list[int]]]] = []
        self.actions: list[tuple[Any, ...]] = []

    def cache(self) -> Memory | None:
        return self.memory if self.subject.cached else None

    def observed(self) -> Counter[str]:
        return Counter(told=len(self.told))

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        self.told.append((step, [list(own) for own in ids]))
        rows = []
        for span in step:
            self.memory.filled[span.sequence] = span.stop
            for layer in range(self.memory.layers()):
                for p in range(span.start, span.stop):
                    own = self.scale * number(layer, span.sequence, p)
                    self.memory.held[layer, span.sequence, p] = (own, -own)
            rows += [[float(p)] * 2 for p in span.rows]
        for at in range(0, len(rows), self.subject.block):
            yield torch.tensor(rows[at : at + self.subject.block])

    def reset(self) -> None:
        self.actions.append(("reset",))
        self.memory.held.clear()
        self.memory.filled.clear()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        self.actions.append(("adopt", sequence, donor, tokens))
        self.memory.filled[sequence] = tokens
        for layer in range(self.memory.layers()):
            for p in range(tokens):
                self.memory.held[layer, sequence, p] = self.memory.held[layer, donor, p]


def chunk(sequence: int, start: int, stop: int, shift: int = 0) -> Span:
    """Positions of a sequence, all rows wanted."""
    return Span(sequence, start, stop, rows_from=start, position_shift=shift)


def one(sequence: int, start: int, shift: int = 0) -> Span:
    """A decoded token."""
    return Span(sequence, start, start + 1, rows_from=start, decode=True, position_shift=shift)


Event = Step | Callable[[Any], object]
"""A step, or what is done to the session (a reset, an adoption, a write) between steps."""


def ids_of(step: Step) -> list[list[int]]:
    """Token ids that tell the position: position + 1 of each, modulo 10."""
    return [[(p + 1) % 10 for p in range(s.start, s.stop)] for s in step]


def run(session: Any, events: Sequence[Event]) -> list[Tensor]:
    """Compute the steps; the rows of each."""
    rows = []
    for event in events:
        if callable(event):
            event(session)
        else:
            rows.append(torch.cat(list(session.forward(event, ids_of(event)))))
    return rows


def changed_places(
    plant: Callable[[Any], Any], subject: Callable[[], Told], members: Sequence[Member],
    events: Sequence[Event], layout: Layout = Layout(),  # noqa: B008 - frozen
) -> dict[Place, float]:  # fmt: skip
    """Where the cache ends otherwise than without the defect, and the key that it holds there.

    Values must have the same fate as keys: they are checked to be the negated keys still.
    """
    right, wrong = subject(), subject()
    run(right.session(members, layout), events)
    run(plant(wrong).session(members, layout), events)
    clean, found = right.sessions[0].memory.held, wrong.sessions[0].memory.held
    assert clean.keys() == found.keys()
    assert all(v == -k for k, v in found.values())
    return {at: found[at][0] for at in found if found[at] != clean[at]}
