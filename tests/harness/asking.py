"""Relations asked directly, of sides that a test has made."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kvparity.record.cache_snapshot import Held
from kvparity.record.path_run import Side
from kvparity.relations.asked import Answer, Asked, Computed
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import path_relation
from kvparity_contracts.checks import Check


def _never() -> Any:
    raise AssertionError("it is not asked for")


def ask(
    relation: str,
    candidate: Side,
    reference: Side | None = None,
    *,
    check: Check | None = None,
    held: tuple[Held, Held] | None = None,
    exact: Tensor | None = None,
) -> Answer:
    """What a relation finds; ``held``: what the two caches hold, if that is known."""
    check = check or next(
        each for each in candidate.setting.contract.checks if each.relation == relation
    )

    def computed(side: Side, number: int) -> Computed:
        return Computed(side, side.run, side.hold if held is None else lambda: held[number])

    return path_relation(relation).compare(
        Asked(
            check, "float32", None, computed(candidate, 1),
            _never if reference is None else lambda: computed(reference, 0),
            _never if exact is None else lambda: exact,
        )
    )  # fmt: skip


def compare_caches(
    reference: Side, candidate: Side, held: tuple[Held, Held] | None = None
) -> Comparison:
    """What the caches of two sides hold."""
    held_check = Check.model_construct(name="held", relation="cache")
    return ask("cache", candidate, reference, check=held_check, held=held).found


def probe(side: Side) -> Answer:
    """Which cached keys the last rows of one side depend on."""
    return ask("liveness", side)
