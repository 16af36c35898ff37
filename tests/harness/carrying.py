"""A contract of three workloads, and a folder that holds what it is said to hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import toy

from kvparity.run import verify as running
from kvparity_contracts.contract import Contract

BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
SHORT = {"name": "short", "prompt_tokens": [3], "generate": 4}
LONG = {"name": "long", "prompt_tokens": [9], "generate": 40}
MIDDLE = {"name": "middle", "prompt_tokens": [40], "generate": 2}


def contract(**changes: Any) -> Contract:
    order = {"name": "added", "relation": "order", "keys": [65, 130]}
    return toy.contract(
        **{"workloads": [SHORT, LONG, MIDDLE], "checks": [BITS, order]} | changes
    )  # fmt: skip


class Folder:
    """What lies in a folder; it counts how often the whole was looked at."""

    def __init__(self, **found: Any) -> None:
        self.found, self.whole_seen = found, 0

    def cases(self, *_: Any) -> Any:
        return self.found.get("cases", [])

    def units(self, *_: Any) -> Any:
        units = self.found.get("units", [])
        return units.pop(0) if units and isinstance(units[0], list) else units

    def controls(self, *_: Any) -> Any:
        return self.found.get("controls", [])

    def whole(self, *_: Any) -> None:
        self.whole_seen += 1


def holding(monkeypatch: pytest.MonkeyPatch, **found: Any) -> Folder:
    folder = Folder(**found)
    monkeypatch.setattr(running, "believed", folder)
    monkeypatch.setattr(running, "evidence_paths", SimpleNamespace(check=lambda *_: None))
    return folder
