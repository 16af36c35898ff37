"""Rows wait for their digests: as they were when they were heard, and in their order."""

from __future__ import annotations

import pytest
import torch

from kvparity.births import digests
from kvparity.births.digests import Digests, digested
from kvparity.subjects.events import Computed

PLACES = [[("a", 0), ("a", 1)]]


def heard(*events: Computed) -> Digests:
    found = Digests()
    for event in events:
        found.hear(event)
        event.rows.zero_()  # the model goes on in the same memory
    found.settle()
    return found


@pytest.mark.parametrize("room", [0, 5, 1 << 20])
def test_a_row_has_the_bits_of_its_time(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "WAITING", room)
    first, second = torch.randn(1, 2, 3), torch.randn(1, 2, 2, 4, dtype=torch.bfloat16)
    again = torch.randn(1, 2, 3)
    expected = [digested(each[0].clone()) for each in (first, second, again)]
    found = heard(
        Computed("one", first, PLACES), Computed("two", second, PLACES),
        Computed("one", again, PLACES),
    )  # fmt: skip
    assert [*found.by_operation["one"].values()] == expected[2]  # computed again: the last
    assert [*found.by_operation["two"].values()] == expected[1]
    assert not found.moved


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_a_cell_that_changed_has_moved(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "WAITING", room)
    rows = torch.randn(1, 2, 3)
    changed = rows.clone()
    changed[0, 1] += 1
    expected = digested(rows[0].clone())
    found = heard(
        Computed("keys", rows, PLACES, read=True), Computed("keys", changed, PLACES, read=True)
    )
    assert [*found.by_operation["keys"].values()] == expected  # read again: the first
    assert found.moved == {"keys": {("a", 1)}}
    turned = torch.randn(1, 2, 3)
    same = heard(
        Computed("keys", turned.clone(), PLACES, read=True),
        Computed("keys", turned.flip(1).contiguous(), PLACES, read=True),
    )
    assert not same.moved  # the same cells in another order
