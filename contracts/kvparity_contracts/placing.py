"""Where a control is planted: the check, the workload and the fewest tokens that can show it.

Read off the contract alone, so that the linter says what a verification will do.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from kvparity_contracts.checks import PathCheck
from kvparity_contracts.chosen import PATHS
from kvparity_contracts.controls import Control
from kvparity_contracts.features import shares_prompt
from kvparity_contracts.needs import needs
from kvparity_contracts.order import Order
from kvparity_contracts.parts import Parts
from kvparity_contracts.paths import PREFILL, PathName
from kvparity_contracts.subjects import Attention, known, narrow
from kvparity_contracts.workloads import Workload

TOKENS = 4
"""Tokens that are compared per sequence, or more where it takes them to have the keys."""
SCORED_TOKENS = 64
"""Tokens that a defect of rounding is looked for in: it shows in about one of five."""


@dataclass(frozen=True)
class Placement:
    """A control's place.

    ``covered``: the check itself compares the control's path there. ``alone``: only that path has
    the defect, though both sides should, because the reference would show it in the same way.
    """

    check: str
    reference: PathName
    workload: str
    sequences: tuple[int, ...]
    generate: int
    covered: bool
    alone: bool = False


@dataclass(frozen=True)
class WorkloadPart:
    """Sequences of a workload and the tokens generated of them; ``cost`` ranks parts."""

    sequences: tuple[int, ...]
    generate: int
    cost: int


def split_and_tile(contract: Parts) -> tuple[int, int]:
    """Split and tile that the contract declares, or the defaults."""
    order = getattr(contract.subject, "order", None) or Order()
    return order.split, order.tile


def fewest_keys(control: Control, contract: Parts) -> int:
    """Keys that a sequence must have for the control to show in this contract's subject."""
    page = getattr(contract.subject, "page", None) or 0
    window = known(contract.subject).sliding_window
    return control.at_least(*split_and_tile(contract), window, page)


def place(
    control: Control, relation: str, contract: Parts, ran: Collection[str]
) -> Placement | str:
    """The cheapest place that shows ``control`` to a check of ``relation``, or why there is none.

    ``ran`` names the workloads that are run. A check that compares the control's own path comes
    first: it says itself that nothing differs without the defect.
    """
    checks = [each for each in contract.path_checks if each.relation == relation]
    if not checks:
        return f"the contract has no {relation} check"
    references = [(check, _reference(control, check)) for check in checks]
    fitting = [(check, found) for check, found in references if isinstance(found, PathName)]
    if not fitting:
        return str(references[0][1])
    best: tuple[tuple[bool, int], Placement] | None = None
    for check, reference in fitting:
        for workload in contract.workloads_of(check):
            part = part_of(control, contract, workload) if workload.name in ran else None
            if part is None:
                continue
            compared = control.path in contract.paths_of(check, workload)
            covered = compared and (check.against is None or reference == check.against)
            rank = (not covered, part.cost)
            if best is None or rank < best[0]:
                found = Placement(
                    check.name, reference, workload.name, part.sequences, part.generate, covered,
                    alone=control.side == "both" and reference.kind in control.paths,
                )  # fmt: skip
                best = rank, found
    return best[1] if best is not None else _too_short(control, contract)


def _too_short(control: Control, contract: Parts) -> str:
    keys = fewest_keys(control, contract)
    wanted = [f"a sequence of at least {keys + 1} tokens"]
    if getattr(contract.subject, "cross", None) is not None:
        wanted = [f"a cross of at least {keys} keys"]
    if control.generate > 1:
        wanted.append(f"at least {control.generate} generated")
    if control.sequences > 1:
        wanted.append(f"prompts of {control.sequences} lengths")
    if control.path.kind.startswith("prefix"):
        wanted.append(f"a prompt of more than {control.path.argument}")
    edge = edge_of(control, contract)
    if edge is not None:
        wanted.append(str(edge))
    if "shared-prompt" in control.features:
        wanted.append(f"prompts that share their first {split_and_tile(contract)[1]}")
    return f"no workload that is run can show it: it takes {', '.join(wanted)}"


def _reference(control: Control, check: PathCheck) -> PathName | str:
    """The path that the planted one is compared with, or why none will do."""
    own = check.against
    if own is None or control.scores_prompt:
        return PREFILL
    if control.side in ("rescore", "both"):
        if own.kind == "generate":
            return "it cannot be planted in the subject's own loop, the reference of the check"
        if own == control.path:
            return (
                f"it shows between {control.path} and another path, but not within {control.path}"
            )
    return own


def part_of(control: Control, contract: Parts, workload: Workload) -> WorkloadPart | None:
    """The smallest part of a workload that shows a control in this contract's subject, or None."""
    tile = split_and_tile(contract)[1]
    if workload.rows is not None and (control.scores_prompt or control.path.kind not in PATHS):
        return None  # rows cannot be chosen there
    if "shared-prompt" in control.features and not shares_prompt(workload, tile):
        return None
    keys, edge = fewest_keys(control, contract), edge_of(control, contract)
    cross = getattr(contract.subject, "cross", None)
    if cross is not None:  # its rows have so many keys whatever their workload
        if keys > cross[0]:
            return None
        keys = 2
    if control.keys == "ahead" and isinstance(contract.subject, Attention):
        # As many are behind the first compared row, and the next one is hidden.
        control = replace(control, generate=contract.subject.sides[1] or 1)
    return smallest(control, workload.lengths(), workload.generate, keys, edge)


@dataclass(frozen=True)
class Edge:
    """Where another order cuts: at odd multiples of ``every`` keys, which a window must hold."""

    window: int
    every: int

    def __str__(self) -> str:
        return (
            f"a decoded token whose window of {self.window} keys goes over an odd multiple of "
            f"{self.every}"
        )

    def first(self, start: int, stop: int) -> int | None:
        """The first position from ``start`` to ``stop - 1`` whose window holds such a cut."""
        inside = (p for p in range(start, stop) if self._cut(p))
        return next(inside, None)

    def _cut(self, position: int) -> bool:
        last = position // self.every
        last -= last % 2 == 0  # the last odd multiple that is not behind the position
        return last * self.every > max(position - self.window + 1, 0)


def edge_of(control: Control, contract: Parts) -> Edge | None:
    """The cuts that a control of the order moves, where every layer sees a window alone."""
    window = narrow(contract.subject)
    if window is None or "order" not in control.features:
        return None
    split, tile = split_and_tile(contract)
    if control.keys == "split" and split > tile:
        return Edge(window, split // 2)
    # Another tile is half as wide, or twice as wide where it is the smallest.
    return Edge(window, max(tile // 2, 16))


def takes(control: Control, contract: Parts) -> str:
    """What a control needs of this contract, in words."""
    edge = edge_of(control, contract)
    return needs(control) if edge is None else f"{needs(control)}, and {edge}"


def smallest(
    control: Control,
    lengths: tuple[int, ...],
    generate: int,
    keys: int,
    edge: Edge | None = None,
) -> WorkloadPart | None:
    """The fewest tokens that show a defect: one sequence with ``keys`` keys, others beside it.

    ``lengths`` are those of the prompts. Behind a shared prefix a prompt must go on, or nothing is
    taken over. With an ``edge`` a decoded token must see across it.
    """
    if generate < control.generate:
        return None
    if control.scores_prompt:
        totals = [length + generate for length in lengths]
        enough = [total for total in totals if total > SCORED_TOKENS]
        total = min(enough) if enough else max(totals)
        # Not enough tokens cost more than any sequence that has them.
        cost = total if enough else 10**9 - total
        return WorkloadPart((totals.index(total),), generate, cost)
    taken = control.path.argument or 0 if control.path.kind.startswith("prefix") else 0
    most = max(TOKENS, control.generate)
    tokens = [
        min(max(most, wanted), generate)
        if length > taken and (wanted := _tokens(length, generate, keys, edge))
        else 0
        for length in lengths
    ]
    long_enough = [i for i, number in enumerate(tokens) if number]
    if not long_enough:
        return None
    chosen = [min(long_enough, key=lambda i: (lengths[i] + tokens[i], i))]
    wanted = tokens[chosen[0]]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if len(chosen) < control.sequences and lengths[i] not in {lengths[j] for j in chosen}:
            chosen.append(i)
    if len(chosen) < control.sequences:
        return None
    return WorkloadPart(tuple(sorted(chosen)), wanted, sum(lengths[i] + wanted for i in chosen))


def _tokens(length: int, generate: int, keys: int, edge: Edge | None) -> int:
    """Tokens to generate behind a prompt so that one sees ``keys`` keys, and across the edge."""
    # The last decoded token sees all tokens but the one drawn from it.
    wanted = keys + 1 - length
    if edge is not None:
        first = max(keys - 1, length)
        position = edge.first(first, max(first, length + generate - 1))
        if position is None:
            return 0
        wanted = position - length + 2
    return max(TOKENS, wanted) if wanted <= generate else 0
