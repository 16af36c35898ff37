"""What a subject tells is heard by all who listen, and counted by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from kvparity.subjects import events
from kvparity.subjects.events import Attended, Ran, Wrote
from kvparity_kernels.stream import Launched, emit

ZEROS = torch.zeros(2, 1, 4)
ROW = Attended(0, 0, 1, None, 2, 0, ZEROS[0], ZEROS, ZEROS, ZEROS[0], None, 1.0)


@dataclass
class Ear:
    """Wants some positions, and keeps what it is told."""

    wanted: Sequence[int] = ()
    told: list[object] = field(default_factory=list)

    def wrote(self, event: Wrote) -> None:
        self.told.append(event)

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        return [p for p in self.wanted if p in positions]

    def attended(self, event: Attended) -> None:
        self.told.append(event)


def test_rows_are_those_that_anybody_wants_once_each() -> None:
    first, second = Ear((4, 1)), Ear((1, 2, 9))
    assert events.current() is None
    with events.listening(first), events.listening(second):
        stream = events.current()
        assert stream is not None
        assert list(stream.wants(0, range(5))) == [4, 1, 2]
        written = Wrote(0, 0, 0, ZEROS, ZEROS)
        stream.wrote(written)
        stream.attended(ROW)
    assert [each is written or each is ROW for each in first.told] == [True, True]
    assert first.told == second.told
    assert events.current() is None


def test_launches_and_what_else_ran_are_counted_by_name() -> None:
    with events.counting() as outer:
        emit(Ran("backend.x"))
        with events.counting() as inner:
            emit(Launched("attention.prefill", {}))
            emit(Ran("backend.x"))
    emit(Ran("backend.x"))
    assert inner == {"backend.x": 1, "attention.prefill": 1}
    assert outer == {"backend.x": 2, "attention.prefill": 1}
