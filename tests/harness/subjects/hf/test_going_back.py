"""A static layer that goes back further than its window has a slot that holds no key."""

from __future__ import annotations

from typing import Any

import pytest
from plain_host import Host, run

from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf.session import Packed


def test_going_nowhere_forgets_nothing() -> None:
    """A static layer that went back one column further than its window has a slot of nobody."""
    session = Packed(Host("static"), [Member("m", 40, 1)], Layout())
    view: Any = session.cache()
    run(session, 0, 0, 9)
    run(session, 0, 9, 10)
    view.truncate(0, 8)
    held = view.live(0, 0)
    assert [*held] == [5, 6, 7]
    for length in (8, 9):
        view.truncate(0, length)
        assert view.live(0, 0) == held


def test_a_slot_of_nobody_is_never_taken_for_a_key() -> None:
    """Going back twice, and as a prefix: what the first time lost is gone the second time."""
    donor, copied = Member("d", 40, 1, "m", 2), Member("m", 40, 1)
    twice: tuple[Any, ...] = (lambda s: s.cache().truncate(1, 7), lambda s: s.adopt(0, 1, 7))
    for second in twice:
        session = Packed(Host("static"), [copied, donor], Layout())
        run(session, 1, 0, 9)
        run(session, 1, 9, 10)
        session.cache().truncate(1, 8)  # columns 5, 6 and 7 are left
        with pytest.raises(UnsupportedError, match="going back to 7 tokens needs column 4"):
            second(session)
