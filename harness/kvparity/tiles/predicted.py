"""Choices of tiles that compiled code and a model of tensor cores call equal to the base.

No device has been asked, so a row here puts nothing in force: ``rules.json`` alone does. It says
what a device should measure first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from kvparity_kernels.rules import choices

PATH = Path(__file__).with_name("predicted.json")
Word = Literal["same", "equal by model"]


@dataclass(frozen=True)
class Predicted:
    """One choice on one architecture, as compiled by a version of Triton, in one format."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    arch: str
    triton: str
    dtype: str
    choice: str
    word: Word

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.choice not in choices():
            raise ValueError(f"{self.choice!r} is no choice of `kvparity tiles`")


_ROWS = TypeAdapter(tuple[Predicted, ...])


@lru_cache(maxsize=1)
def predicted() -> tuple[Predicted, ...]:
    """The packaged rows. Raises ``ValueError`` for what is not one."""
    return _ROWS.validate_json(PATH.read_bytes())


def first(names: Iterable[str], arch: str | None, dtypes: Sequence[str]) -> tuple[str, ...]:
    """Those predicted equal on an architecture before all others; else the order stays."""
    known = {row.choice for row in predicted() if row.arch == arch and row.dtype in dtypes}
    return tuple(sorted(names, key=lambda name: name not in known))
