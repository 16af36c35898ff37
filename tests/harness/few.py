"""Of many alike cases the first few at once; the rest is marked slow, which `.ci/run` runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def few(cases: Iterable[Any], now: int) -> list[Any]:
    """Parameters for :func:`pytest.mark.parametrize`; those from number ``now`` on are slow."""
    listed = list(cases)
    later = [each if isinstance(each, tuple) else (each,) for each in listed[now:]]
    return [*listed[:now], *(pytest.param(*each, marks=pytest.mark.slow) for each in later)]
