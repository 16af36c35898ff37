"""Inside attention of a decoder: told only if a replay gives the bits of both sides."""

from __future__ import annotations

import pytest
from located import located

from kvparity.births.account import Account, account
from kvparity.labs.defect_matrix import locating
from kvparity.record.path_run import PathRun
from kvparity.run.inside import Inside, inside

NAMES = ("prefill", "decode")
DECODER: dict[str, tuple[str | None, str]] = {
    "split-by-batch": ("sum of P V", "decode keys 0..17 as 2 splits from 0, 16"),
    "tile-by-query-length": ("sum of P V", "prefill walks keys 0..30 as one split of 2 tiles"),
    "polynomial-exp2": (None, "a black box with equal inputs: no replay gives the bits"),
    "linear-kernel-by-rows": (None, "a black box with equal inputs"),
    "stale-slot": (None, "a black box with different inputs"),
}


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[PathRun]:
    """Both sides of what ``located`` located."""
    found: list[PathRun] = []

    def noted(a: PathRun, b: PathRun, *, room: int, until: float) -> Account:
        found[:] = a, b
        return account(a, b, room=room, until=until)

    monkeypatch.setattr(locating, "account", noted)
    return found


def looked(control: str, sides: list[PathRun]) -> Inside | None:
    found = located("plain", control)
    return inside(found, (sides[0], sides[1]), NAMES)


@pytest.mark.parametrize("control", DECODER)
def test_the_first_node_of_a_decoder(control: str, sides: list[PathRun]) -> None:
    node, words = DECODER[control]
    found = looked(control, sides)
    assert found is not None
    assert words in found.words
    assert (found.parting.node if found.parting else None) == node
