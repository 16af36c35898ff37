"""Every fact of a control's row decides something: what is said of it, or where it is planted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from kvparity.labs.zoo.habitats import HABITATS
from kvparity.labs.zoo.text import entry
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.placing import place
from kvparity_contracts.planning import workloads_run

CONTRACTS = [HABITATS[name].contract for name in ("plain", "ring", "masked-pair")]
RAN = [workloads_run(contract) for contract in CONTRACTS]


def decided(row: Control) -> list[Any]:
    """All that is said of a row, and where it is planted in some contracts."""
    found: list[Any] = [entry(row), row.path, row.side]
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
