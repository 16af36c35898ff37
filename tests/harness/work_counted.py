"""How much of its input a function reads: a count, which no load of a machine changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def reads(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *kinds: type) -> int:
    """How many attributes of values of ``kinds`` are read while ``what`` runs."""
    count = 0
    with monkeypatch.context() as patch:
        for kind in kinds:
            found = kind.__getattribute__

            def counting(self: Any, name: str, found: Any = found) -> Any:
                nonlocal count
                count += 1
                return found(self, name)

            patch.setattr(kind, "__getattribute__", counting)
        what()
    return count
