"""A small run whose work is made up, for tests of who carries it out."""

from __future__ import annotations

from typing import Any

import pytest
import toy
from toy import Toy

from kvparity.core import doing
from kvparity.plan.cases import make
from kvparity.plan.kernel_cases import KernelNumerics
from kvparity.run import worker

CONTRACT = toy.contract(
    workloads=[{"name": "w", "prompts": [[5, 6, 7], [9]], "generate": 3}],
    checks=[
        {"name": "bits", "relation": "invariance", "paths": ["decode"]},
        {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e-5}},
        {"name": "added", "relation": "order", "keys": [65]},
    ],
)
WORK = make(CONTRACT)
(UNIT,) = WORK.units
NUMERICS = UNIT.numerics
OTHER = KernelNumerics("bfloat16", "bfloat16")


def made(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> list[Any]:
    """Lets subjects be made here; what was asked for, and what the process said it was doing."""
    asked: list[Any] = []

    def factory(kind: str) -> Any:
        def make(model: Any, **options: Any) -> Toy:
            asked.append((kind, model, options, doing.now().task))
            if error is not None:
                raise error
            return Toy()

        return make

    monkeypatch.setattr(worker, "factory", factory)
    return asked


def raising(error: BaseException) -> Any:
    def fails(*_: Any) -> Any:
        raise error

    return fails
