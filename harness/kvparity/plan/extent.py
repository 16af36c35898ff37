"""How much a contract has to compute, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvparity.plan.cases import Work
from kvparity_contracts.workloads import Workload

USUAL_EDGE = 64
"""Keys of a tile of common attention kernels; edges lie at its multiples."""


def compared(workload: Workload) -> list[range]:
    """With how many keys the compared rows of each sequence are computed."""
    return [range(length, length + workload.generate) for length in workload.lengths()]


def crossed(ranges: Iterable[range], own: Sequence[int] = ()) -> list[int]:
    """Multiples of a tile (``own`` tile and split, else the usual one) with rows on both sides."""
    sizes, every = own or (USUAL_EDGE,), list(ranges)
    top = max((r[-1] for r in every), default=0)
    edges = {edge for size in sizes for edge in range(size, top + 1, size)}
    return sorted(edge for edge in edges if any(edge in r and edge + 1 in r for r in every))


def tokens(work: Work) -> int:
    """Positions that all paths of all units compute, each path once for each unit."""
    total = 0
    for unit in work.units:
        paths = {path for case in unit.cases for path in (case.path, case.reference, unit.rollout)}
        for path in paths - {None}:
            steps = unit.plans.of(path).schedule if path is not None else ()
            total += sum(span.stop - span.start for step in steps for span in step)
    return total
