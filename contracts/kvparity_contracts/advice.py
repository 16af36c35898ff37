"""Suggestions that lead to no error: each is tried before it is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache

from pydantic import ValidationError

from kvparity_contracts.base import Fault, KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.explain import explain
from kvparity_contracts.yamltext import Data, read

MOST_TRIED = 20
"""Faults of a file whose suggestions are tried; with more, none is given: mend the first ones."""


def honest(data: dict[str, Data], fault: Fault, others: Sequence[tuple[Fault, bool]]) -> Fault:
    """The fault, without its suggestion where following that is an error again.

    What the suggestion only brings to light (the keys of a kind that is now known, say) was wrong
    before, and is no reason to keep it back.
    """
    if not fault.suggestion:
        return fault
    if len(others) > MOST_TRIED or not _mends(data, fault, others):
        return replace(fault, suggestion="")
    return fault


def _mends(data: dict[str, Data], fault: Fault, others: Sequence[tuple[Fault, bool]]) -> bool:
    changed = deepcopy(data)
    followed = _follow(changed, fault.at, fault.suggestion)
    if followed is None:
        return True  # it is advice of another kind than one word for another
    if not followed:
        return False
    try:
        Contract.model_validate(changed)
    except ValidationError as error:
        before = {(each.at, each.message) for each, _ in others if each is not fault}
        new = [each for each, _ in explain(error) if (each.at, each.message) not in before]
        word = re.compile(rf"(?<!\w){re.escape(fault.suggestion)}(?!\w)")
        return not any(each.at == fault.at or word.search(each.message) for each in new)
    return True


def _follow(data: Data, at: KeyPath, suggestion: str) -> bool | None:
    """Put the suggestion where the fault is; False where it cannot stand, None where it is no word.

    A key that no model has is reported as a key, and is renamed.
    """
    inside = data
    for part in at[:-1]:
        if isinstance(part, int) and not isinstance(inside, list):
            continue  # one value where a list may stand
        following = _inside(inside, part)
        if following is None:
            return None
        inside = following
    last = at[-1] if at else None
    if isinstance(inside, dict) and last in inside:
        if suggestion not in _keys() or last in _keys():
            inside[last] = read(suggestion).data
            return True
        if suggestion in inside:
            return False
        inside[suggestion] = inside.pop(last)
        return True
    if isinstance(inside, list) and isinstance(last, int) and last < len(inside):
        inside[last] = read(suggestion).data
        return True
    return None


def _inside(data: Data, part: str | int) -> Data:
    """What stands at a key or an index; None where nothing does."""
    if isinstance(data, dict) and isinstance(part, str):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


@cache
def _keys() -> frozenset[str]:
    """Every key of any part of a contract."""
    models = Contract.model_json_schema().get("$defs", {}).values()
    return frozenset(Contract.model_fields).union(*(each.get("properties", ()) for each in models))
