"""Planted defects of the reference decoder: the operation that has each is named, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from located import located

from kvparity.locate.causes import cause

LINEAR = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "logits"]
PLANTED: dict[str, tuple[str, list[str], str, bool]] = {
    "split-by-batch": ("plain", ["attention"], "attention", True),
    "tile-by-query-length": ("plain", ["attention"], "attention", True),
    "stale-slot": ("plain", ["attention"], "memory", True),
    "polynomial-exp2": ("plain", ["attention"], "attention", True),
    "position-off-by-one": ("plain", ["query", "key"], "position", True),
    "rope-table-bfloat16": ("plain", ["query", "key"], "position", True),
    "linear-kernel-by-rows": ("plain", LINEAR, "reduction order", True),
    "linear-split-by-tokens": ("plain", LINEAR, "reduction order", True),
    "stale-after-update": ("plain", ["attention"], "memory", True),
    "temperature-ignored": ("plain", [], "logprob semantics", False),
    "inlined-logprob": ("plain", [], "logprob semantics", False),
    "order-by-launch": ("plain", ["attention"], "state", False),
    "baked-cache": ("plain", [], "not reported", False),
}


@pytest.mark.parametrize("control", PLANTED)
def test_a_planted_defect_is_born_where_it_was_planted(control: str) -> None:
    fixture, operations, kind, complete = PLANTED[control]
    found = located(fixture, control)
    assert found.differing
    born = {each.operation.partition(" ")[2] or each.operation for each in found.births}
    assert born <= set(operations), born
    assert bool(born) == bool(operations)
    assert cause(found).kind == kind
    assert found.complete is complete


def test_without_a_defect_nothing_is_located() -> None:
    found = located("plain", None)
    assert (found.differing, found.births, found.complete) == (0, (), False)
    assert cause(found).kind == "no difference"
    assert found.operations > 10


def test_what_does_not_fit_into_memory_is_said() -> None:
    found = located("plain", "split-by-batch", room=1 << 12)
    assert found.left_out
    assert not found.complete


def test_an_account_of_a_part_is_not_complete() -> None:
    whole = located("plain", "split-by-batch")
    assert whole.complete
    for change in ({"left_out": 1}, {"still": 1}, {"births": ()}, {"differing": 0}):
        assert not replace(whole, **change).complete
    assert "inside" in cause(replace(whole, differing=0)).words
