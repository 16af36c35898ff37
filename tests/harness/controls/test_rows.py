"""A control's row: every fact decides something, and what it lets be planted can be planted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity.controls.table import planting
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity.labs.defect_matrix.text import listed
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.registry import factory
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.placing import place
from kvparity_contracts.planning import PlantedControl, fates, workloads_run

CONTRACTS = [FIXTURES[name].contract for name in ("plain", "ring", "masked-pair", "paged-pair")]
RAN = [workloads_run(contract) for contract in CONTRACTS]


def decided(row: Control) -> list[Any]:
    """All that is said of a row, and where it is planted in some contracts."""
    found: list[Any] = [listed(row), row.path, row.side]
    for contract, ran in zip(CONTRACTS, RAN, strict=True):
        if contract.subject.kind in row.subjects:
            found += [place(row, each, contract, ran) for each in row.relations]
    return found


def without(row: Control) -> Iterator[tuple[str, Control]]:
    """The row with one fact less: a default in place of it, or one word of several."""
    for field in fields(row):
        value = getattr(row, field.name)
        if field.default is not MISSING and value != field.default:
            yield field.name, replace(row, **{field.name: field.default})
        if isinstance(value, tuple) and len(value) > 1:
            for word in value:
                fewer = tuple(each for each in value if each != word)
                yield f"{field.name}: {word}", replace(row, **{field.name: fewer})


@pytest.mark.parametrize("name", CONTROLS)
def test_no_fact_of_a_row_is_idle(name: str) -> None:
    whole = decided(CONTROLS[name])
    assert [fact for fact, other in without(CONTROLS[name]) if decided(other) == whole] == []


def changed(fixture: str, **subject: Any) -> Contract:
    """The contract of a fixture, its first prompt longer, with other keys of its subject."""
    whole = FIXTURES[fixture].contract.model_dump(exclude_none=True)
    first, *others = whole["workloads"]
    workloads = [first | {"prompt_tokens": [70]}, *others]
    return Contract.model_validate(
        whole | {"subject": whole["subject"] | subject, "workloads": workloads}
    )


SMALL = FIXTURES["plain"].contract.model_dump(exclude_none=True)["subject"]["config"]
WHOLE: dict[str, Contract] = {name: each.contract for name, each in FIXTURES.items()} | {
    "one-layer": changed("plain", config=SMALL | {"layers": 1}),
    "few-ids": changed("plain", config=SMALL | {"vocab_size": 63}),
    "no-order": changed("pair", order=None),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_the_linter_lets_be_planted_can_be_planted(name: str) -> None:
    contract = WHOLE[name]
    execution, store = contract.numerics.formats()[0]
    subject = factory(contract.subject.kind)(
        contract.subject, execution=execution, kv_cache=store, device=torch.device("cpu"), seed=0,
        base=Path(),
    )  # fmt: skip
    planted = [fate for fate in fates(contract) if isinstance(fate, PlantedControl) and fate.place]
    assert len(planted) > 3
    for fate in planted:
        defect = planting(fate.control)
        for plant in (defect.rollout, defect.rescore):
            plant(subject).session([Member("m", 30, 20)], Layout(chunk=30))
        handed = defect.handover([1, 2], 1)
        assert not subject.vocab or max(handed) < subject.vocab
