"""One stream of events: who listens hears what happens inside, of its kind, and nobody else."""

from __future__ import annotations

from contextvars import Context
from dataclasses import dataclass

from kvparity_kernels.stream import emit, heard, listening


@dataclass(frozen=True)
class Event:
    number: int


class Special(Event):
    pass


def test_all_who_listen_hear_what_is_of_their_kind_and_inside() -> None:
    outer: list[Event] = []
    inner: list[Special] = []
    emit(Event(0))
    with listening(Event, outer.append):
        emit(Event(1))
        with listening(Special, inner.append):
            emit(Special(2))
            emit(Event(3))
            emit("nothing of the kind")
        emit(Special(4))
        Context().run(emit, Event(5))  # another context hears nothing
    emit(Event(6))
    assert outer == [Event(1), Special(2), Event(3), Special(4)]
    assert inner == [Special(2)]


def test_what_nobody_listens_to_need_not_be_made() -> None:
    assert not heard(Event)
    with listening(Special, lambda event: None):
        assert (heard(Event), heard(Special), heard(str)) == (False, True, False)
    with listening(Event, lambda event: None):
        assert (heard(Event), heard(Special)) == (True, True)
    assert not heard(Special)
