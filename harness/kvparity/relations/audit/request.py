"""What to compile: one side of attention, for one architecture, in one reduction order."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from kvparity_contracts.json_types import JsonObject
from kvparity_kernels import rules
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, Tiles

SideName = Literal["prefill", "decode"]
Constant = bool | int | float | str | None
"""What a kernel is compiled with."""
ARCHITECTURES: dict[str, int] = {"sm_80": 80, "sm_90": 90, "sm_100": 100}
"""Those that are looked at if nobody names one."""
TARGETS: dict[str, int] = {"sm_80": 80, "sm_89": 89, "sm_90": 90, "sm_100": 100}
"""All that kernels are compiled for."""


class AuditError(RuntimeError):
    """The audit cannot look: a kernel does not compile, or its code is not readable."""


@dataclass(frozen=True)
class Shape:
    """Head counts, head dimension, formats, and slots per page (0: a contiguous cache).

    ``kv_cache``: a dtype, or a format of codes such as ``fp8_e4m3(head)``. The others say whether
    there is such a thing at all: how large it is, compiled code does not know. ``ring``: the cache
    is one, which only a window may look at.
    """

    query_heads: int
    kv_heads: int
    head_dim: int
    execution: str = "bfloat16"
    kv_cache: str = "bfloat16"
    page: int = 0
    window: bool = False
    softcap: bool = False
    sinks: bool = False
    ring: bool = False

    def __str__(self) -> str:
        """``4/2 heads of 16, bfloat16, cache fp8_e4m3(head), window, softcap``."""
        more = [name for name in ("window", "softcap", "sinks", "ring") if getattr(self, name)]
        heads = f"{self.query_heads}/{self.kv_heads} heads of {self.head_dim}"
        return ", ".join([heads, self.execution, f"cache {self.kv_cache}", *more])


def tiles_in_force(arch: str, dtype: str, order: ReductionOrder) -> Tiles:
    """The tiles of attention that a launch would take there, with the Triton that is installed.

    Raises ``RulesError`` if the table of rules is damaged.
    """
    if order != ReductionOrder():  # about which no rule says anything
        return BASE
    return replace(rules.in_force(arch, rules.triton_version(), dtype), linear=())


@dataclass(frozen=True)
class Request:
    """One side, as the project's own wrappers would launch it.

    ``fusion``: let the compiler contract products and sums; None is as launched, which is off.
    ``source``: another text of the attention kernels, for planted faults. ``tiles``: None is those
    that are in force.
    """

    side: SideName
    arch: str
    shape: Shape
    order: ReductionOrder = field(default_factory=ReductionOrder)
    fusion: bool | None = None
    source: Path | None = None
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        """Check the architecture; settle the tiles."""
        if self.arch not in TARGETS:
            raise ValueError(
                f"architecture {self.arch!r} is unknown; expected one of {', '.join(TARGETS)}"
            )
        if self.tiles is None:
            found = tiles_in_force(self.arch, self.shape.execution, self.order)
            object.__setattr__(self, "tiles", found)

    def as_json(self) -> JsonObject:
        """JSON values; ``from_json`` reads them back."""
        source = None if self.source is None else str(self.source)
        return {**asdict(self), "source": source}


def from_json(data: JsonObject) -> Request:
    """The request that ``as_json`` wrote."""
    return TypeAdapter(Request).validate_python(data)
