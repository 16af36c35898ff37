"""Which paths of which units are computed again, within a tenth of the run's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvparity.plan.cases import Unit
from kvparity.relations.registry import path_relation
from kvparity.run.recheck.choice import chosen, needed, tokens_of
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName

SHARE = 0.1
"""Of the tokens that all paths of a run compute: what is computed again costs no more ..."""
FLOOR = 256
"""... or this many tokens, where that is more: a small run has all of its paths looked at."""


@dataclass(frozen=True)
class FreshRequest:
    """Paths of one unit that one fresh process computes: all of one side."""

    unit: Unit
    paths: tuple[PathName, ...]


@dataclass(frozen=True)
class Selection:
    """``requests``: what is computed again. ``paths``: how many paths, ``of`` how many."""

    requests: tuple[FreshRequest, ...]
    paths: int
    of: int


def select(contract: Contract, units: Sequence[Unit], verdicts: Mapping[str, str]) -> Selection:
    """The cheapest paths first, by tokens, as long as they fit.

    ``verdicts``: by case. Only paths of a case that holds are looked at: nothing else rests on
    them. The references of a unit go to a process of their own, so that neither side of a case has
    seen the other.
    """
    whole, items = 0, []
    for unit in units:
        compared = [c for c in unit.cases if path_relation(c.relation).file.by_token]
        holding = [c for c in compared if verdicts.get(c.id) == "holds"]
        references = {c.reference for c in holding if c.reference is not None}
        for path in dict.fromkeys(p for c in compared for p in (c.path, c.reference) if p):
            plan = unit.plans.of(path)
            whole += tokens_of(plan)
            if path in references or any(c.path == path for c in holding):
                places = chosen(plan, seed=contract.seed, unit=unit.id, path=str(path))
                part = needed(plan, places) if places else plan
                items.append((tokens_of(part), unit, path, path in references))
    kept, spent = [], 0
    for cost, unit, path, reference in sorted(items, key=lambda item: item[0]):
        if spent + cost <= max(SHARE * whole, FLOOR):
            kept.append((unit, path, reference))
            spent += cost
    requests = []
    for unit in units:
        for side in (False, True):
            paths = tuple(p for u, p, r in kept if u.id == unit.id and r is side)
            if paths:
                requests.append(FreshRequest(unit, paths))
    return Selection(tuple(requests), len(kept), len(items))
