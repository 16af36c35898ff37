"""Which operations of torch's multiply matrices or add floats, counted as they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from kvparity_kernels.overrides import tables
from kvparity_kernels.overrides.mode import names
from kvparity_kernels.relied.torch import OpOverload, TorchDispatchMode, composite, schema
from kvparity_kernels.relied.torch import tree_leaves as leaves

_unwatched: ContextVar[bool] = ContextVar("kvparity_unwatched", default=False)

_PRODUCTS = frozenset(name.split(".")[0] for name in tables.OVERRIDES)
"""Whatever their overload: also into a given ``out``."""


class _Sums(TorchDispatchMode):  # type: ignore[no-untyped-call] # so is all of the class
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # see above
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        called = _operation(func)
        if (
            not _unwatched.get()
            and (called.sums or called.accumulates(args, kwargs))
            and any(isinstance(x, Tensor) and _real(x) for x in leaves((args, kwargs)))
        ):
            self.found[called.name] += 1
        elif called.composite:  # without autograd, ``@`` comes whole: its products are inside
            with self:
                return func.decompose(*args, **kwargs)
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _Operation:
    """``accumulate``: at which place it is told to add to what is there; None: at none."""

    name: str
    sums: bool
    composite: bool
    accumulate: int | None

    def accumulates(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call adds what has one place, as ``index_put`` does if it is told to."""
        if self.accumulate is None:
            return False
        given = args[self.accumulate] if self.accumulate < len(args) else kwargs.get("accumulate")
        return bool(given)


@cache
def _operation(func: OpOverload) -> _Operation:
    """What is asked of every call, asked once."""
    name, base = names(func)
    takes = [each.name for each in schema(func).arguments]
    place = takes.index("accumulate") if "accumulate" in takes else None
    return _Operation(name, _sums(name, base) or "reduce" in takes, composite(func), place)


def _sums(name: str, base: str) -> bool:
    attends = any(part in base for part in tables.ATTENTION)
    solves = base.startswith(("linalg_", "_linalg_", "_fft_", "_sparse_"))
    return name in tables.OVERRIDES or base in _PRODUCTS | tables.REDUCES or attends or solves


def _real(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


@contextmanager
def watching_sums() -> Iterator[Counter[str]]:
    """By name, how often torch itself multiplied matrices or added floats inside."""
    mode = _Sums()
    with mode:
        yield mode.found


@contextmanager
def unwatched() -> Iterator[None]:
    """Count nothing inside: what runs there is the watcher's own."""
    token = _unwatched.set(True)
    try:
        yield
    finally:
        _unwatched.reset(token)
