"""Helpers of these tests (``toy``, ...) are plain modules beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvparity_contracts import abilities

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contracts may name every path of every subject: a toy that stands in for it can do them."""
    monkeypatch.setattr(abilities, "UNABLE", {kind: {} for kind in abilities.UNABLE})
