"""Which edges the draws of a contract reach: said by the linter, which warns of the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kvparity_contracts.abilities import cannot
from kvparity_contracts.base import KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.draws import WORDS, CutEdge, draw, means, reached, targets
from kvparity_contracts.idling import why_idle
from kvparity_contracts.paths import PathName
from kvparity_contracts.steps import WrittenSteps
from kvparity_contracts.workloads import Workload

Sides = set[tuple[CutEdge, int]]


@dataclass(frozen=True)
class _Drawn:
    """The draws of one path over one workload."""

    at: KeyPath
    path: PathName
    workload: Workload
    draws: tuple[WrittenSteps, ...]
    aimed: Sides
    got: Sides


def told(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """What the draws of each path reach, a line for each workload."""
    for each in _drawn(contract):
        words = _words(each.got) or "beside no edge: every prompt is too short"
        own = len(each.workload.lengths())
        yield each.at, f"over {each.workload.name} prompts are cut {words}; {_rest(each, own)}"


def missed(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """Edges that prompts are long enough for and no draw cuts at."""
    for each in _drawn(contract):
        left = each.aimed - each.got
        if left and each.path.kind == "random":
            yield (
                each.at,
                f"no draw of '{each.path}' cuts a prompt of {each.workload.name} {_words(left)}; "
                f"random({len(each.aimed)}) does",
            )


def _drawn(contract: Contract) -> Iterator[_Drawn]:
    given, seed = means(contract), contract.seed
    for check in contract.path_checks:
        for j, path in enumerate(check.paths):
            if path.kind not in ("random", "drawn") or cannot(contract.subject, path):
                continue
            for load in filter(contract.counted, contract.workloads_of(check)):
                numbers = [each.argument or 0 for each in path.expand(())]
                if why_idle(PathName("drawn", 1), load) is not None:
                    continue
                lengths = load.lengths()
                draws = tuple(
                    draw(n, seed, load.name, lengths, load.generate, given) for n in numbers
                )
                got = {hit for each in draws for hit in reached(each, len(lengths), given)}
                aimed = set(targets(max(lengths), given))
                at = ("checks", contract.checks.index(check), "paths", j)
                yield _Drawn(at, path, load, draws, aimed, got & aimed)


def _words(sides: Iterable[tuple[CutEdge, int]]) -> str:
    found: dict[CutEdge, list[int]] = {}
    for edge, side in sides:
        found.setdefault(edge, []).append(side)
    ordered = sorted(found, key=lambda edge: (edge.keys, edge.name))
    parts = []
    for edge in ordered:
        words = ", ".join(WORDS[side] for side in sorted(found[edge]))
        parts.append(f"{words} the edge of a {edge.name} of {edge.keys}")
    return "; ".join(parts)


def _rest(each: _Drawn, own: int) -> str:
    """How many of the draws have what else is drawn."""
    rows = max(len(step) for draw in each.draws for step in draw.steps)
    counts = {
        "in pages": sum(bool(draw.page) for draw in each.draws),
        "with fillers": sum(draw.sequences > own for draw in each.draws),
        "after an earlier use": sum(bool(draw.since_reset) for draw in each.draws),
    }
    has = [f"{count} {words}" for words, count in counts.items() if count]
    many = f"{len(each.draws)} draws" if len(each.draws) > 1 else "1 draw"
    return f"of {many}: {', '.join([*has, f'at most {rows} in a step'])}"
