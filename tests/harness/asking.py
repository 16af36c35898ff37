"""Relations asked directly, of sides that a test has made."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kvparity.record.cache_snapshot import CacheSnapshot
from kvparity.record.path_run import PathRun
from kvparity.relations.asked import Asked, ComparedSide, RelationAnswer
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import path_relation
from kvparity_contracts.checks import Check


def _never() -> Any:
    raise AssertionError("it is not asked for")


def ask(
    relation: str,
    candidate: PathRun,
    reference: PathRun | None = None,
    *,
    check: Check | None = None,
    held: tuple[CacheSnapshot, CacheSnapshot] | None = None,
    exact: Tensor | None = None,
) -> RelationAnswer:
    """What a relation finds; ``held``: what the two caches hold, if that is known."""
    check = check or next(
        each for each in candidate.setting.contract.checks if each.relation == relation
    )

    def computed(side: PathRun, number: int) -> ComparedSide:
        return ComparedSide(
            side, side.run, side.take_snapshot if held is None else lambda: held[number]
        )

    return path_relation(relation).compare(
        Asked(
            check, "float32", None, computed(candidate, 1),
            _never if reference is None else lambda: computed(reference, 0),
            _never if exact is None else lambda: exact,
        )
    )  # fmt: skip


def compare_caches(
    reference: PathRun, candidate: PathRun, held: tuple[CacheSnapshot, CacheSnapshot] | None = None
) -> Comparison:
    """What the caches of two sides hold."""
    held_check = Check.model_construct(name="held", relation="cache")
    return ask("cache", candidate, reference, check=held_check, held=held).found


def probe(side: PathRun) -> RelationAnswer:
    """Which cached keys the last rows of one side depend on."""
    return ask("liveness", side)
