"""Where a control is planted: the check, the workload and the fewest tokens that can show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvparity.controls.base import Control, unchanged
from kvparity.workload import Prompts
from kvparity_contracts.checks import PathCheck, Relation, reference_of
from kvparity_contracts.contract import Contract
from kvparity_contracts.features import shares_prompt
from kvparity_contracts.paths import PathName
from kvparity_contracts.subjects import known

SCORED_TOKENS = 64
"""Tokens that a defect of rounding is looked for in: it shows in about one of five."""


@dataclass(frozen=True)
class Place:
    """A control's place. ``covered``: the check itself compares the control's path there."""

    check: str
    reference: PathName
    workload: str
    sequences: tuple[int, ...]
    generate: int
    covered: bool


@dataclass(frozen=True)
class Part:
    """Sequences of a workload and the tokens generated of them; ``cost`` ranks parts."""

    sequences: tuple[int, ...]
    generate: int
    cost: int


def place(
    control: Control,
    relation: Relation,
    contract: Contract,
    prompts: Mapping[str, Prompts],
    order: tuple[int, int],
) -> Place | str:
    """The cheapest place that shows ``control`` to a check of ``relation``, or why there is none.

    ``prompts`` holds the workloads that are run, ``order`` split and tile. A check that compares
    the control's own path comes first: it says itself that nothing differs without the defect.
    """
    checks = [each for each in contract.path_checks if each.relation == relation]
    if not checks:
        return f"the contract has no {relation} check"
    references = [(check, _reference(control, check)) for check in checks]
    fitting = [(check, found) for check, found in references if isinstance(found, PathName)]
    if not fitting:
        return str(references[0][1])
    keys = control.keys(*order)
    if control.windowed:
        keys = max(keys, (known(contract.subject).sliding_window or 0) + 1)
    best: tuple[tuple[bool, int], Place] | None = None
    for check, reference in fitting:
        for workload in contract.workloads_of(check):
            part = (
                smallest(control, prompts[workload.name], keys)
                if workload.name in prompts
                and (not control.shared_prompt or shares_prompt(workload, order[1]))
                else None
            )
            if part is None:
                continue
            compared = control.path in contract.paths_of(check, workload)
            covered = compared and (reference_of(check) is None or reference == reference_of(check))
            rank = (not covered, part.cost)
            if best is None or rank < best[0]:
                best = (
                    rank,
                    Place(
                        check.name, reference, workload.name, part.sequences, part.generate, covered
                    ),
                )
    if best is None:
        return (
            f"no workload can show it: it takes {control.sequences} sequence(s) of different "
            f"length, at least {control.generate} generated token(s) and {keys} keys"
        )
    return best[1]


def _reference(control: Control, check: PathCheck) -> PathName | str:
    """The path that the planted one is compared with, or why none will do."""
    own = reference_of(check)
    if own is None or control.scores_prompt:
        return PathName("prefill")
    if control.rescore is not unchanged:
        if own.kind == "generate":
            return "it cannot be planted in the subject's own loop, the reference of the check"
        if own == control.path:
            return (
                f"it shows between {control.path} and another path, but not within {control.path}"
            )
    return own


def smallest(control: Control, prompts: Prompts, keys: int) -> Part | None:
    """The fewest tokens that show a defect: one sequence with ``keys`` keys, others beside it.

    Behind a shared prefix a prompt must go on, or nothing is taken over.
    """
    if prompts.generate < control.generate:
        return None
    lengths = [len(prompt) for prompt in prompts.prompts]
    if control.scores_prompt:
        totals = [length + prompts.generate for length in lengths]
        enough = [total for total in totals if total > SCORED_TOKENS]
        total = min(enough) if enough else max(totals)
        # Not enough tokens cost more than any sequence that has them.
        cost = total if enough else 10**9 - total
        return Part((totals.index(total),), prompts.generate, cost)
    # The last decoded token sees all tokens but the one drawn from it.
    tokens = [max(control.tokens, keys + 1 - length) for length in lengths]
    taken = control.path.argument or 0 if control.path.kind.startswith("prefix") else 0
    tokens = [
        min(wanted, prompts.generate)
        if keys + 1 - length <= prompts.generate and length > taken
        else 0
        for wanted, length in zip(tokens, lengths, strict=True)
    ]
    long_enough = [i for i, number in enumerate(tokens) if number]
    if not long_enough:
        return None
    chosen = [min(long_enough, key=lambda i: (lengths[i] + tokens[i], i))]
    generate = tokens[chosen[0]]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if len(chosen) < control.sequences and lengths[i] not in {lengths[j] for j in chosen}:
            chosen.append(i)
    if len(chosen) < control.sequences:
        return None
    return Part(tuple(sorted(chosen)), generate, sum(lengths[i] + generate for i in chosen))
