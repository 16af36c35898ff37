"""Switch the mode on and off: one thread at a time, one setting at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from kvparity_kernels.overrides.mode import FixedOrder, Planted
from kvparity_kernels.overrides.report import InvariantReport

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class _Active:
    """The mode that is on, whose it is, and for each entry whether it was paused before."""

    thread: int
    setting: tuple[bool, Planted]
    mode: FixedOrder
    threads: int
    entries: list[bool] = field(default_factory=list)


_lock = threading.Lock()
_active: _Active | None = None


class Invariant:
    """The context manager and decorator behind :func:`invariant`.

    ``planted``, for controls, names aten operations (``"mm"``) and what computes them instead,
    called with the operation and its arguments.
    """

    def __init__(self, *, strict: bool = True, planted: Planted | None = None) -> None:
        self.strict, self.planted = strict, dict(planted or {})

    def __enter__(self) -> InvariantReport:
        global _active
        me, setting = threading.get_ident(), (self.strict, self.planted)
        with _lock:
            if _active is not None and _active.thread != me:
                raise RuntimeError(
                    "invariant() is on in another thread; it takes one thread at a time, because "
                    "it sets torch's number of threads for all of them"
                )
            if _active is not None:
                if _active.setting != setting:
                    raise RuntimeError(
                        f"invariant(strict={self.strict}) inside invariant(strict="
                        f"{_active.setting[0]}): leave the outer one, or use the same settings"
                    )
                _active.entries.append(_active.mode.paused)
                _active.mode.paused = False
                return _active.mode.report
            mode = FixedOrder(InvariantReport(), strict=self.strict, planted=self.planted)
            mode.__enter__()  # type: ignore[no-untyped-call] # torch leaves it so
            _active = _Active(me, setting, mode, torch.get_num_threads())
            # Torch cuts a tensor among threads at places that are no multiple of a vector.
            torch.set_num_threads(1)
            return mode.report

    def __exit__(self, *error: object) -> None:
        """Switch off at the outermost exit, also after an exception."""
        global _active
        with _lock:
            assert _active is not None, "entered before"
            if _active.entries:
                _active.mode.paused = _active.entries.pop()
                return
            active, _active = _active, None
            torch.set_num_threads(active.threads)
            active.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call] # as above

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate: the mode is on during each call."""

        @wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with Invariant(strict=self.strict, planted=self.planted):
                return function(*args, **kwargs)

        return inside


def invariant(*, strict: bool = True) -> Invariant:
    """Compute torch's reductions in the fixed order of this project, in this thread.

    A context manager that gives a :class:`InvariantReport`, and a decorator. Inside, matrix
    products, sums, means, softmax, log_softmax and torch's RMS norm run in an order that follows
    neither the number of rows nor a row's place; on the CPU elementwise operations run so that no
    place in a tensor is special. float32, float16 and bfloat16, CPU (vectorised twins) and CUDA
    (Triton kernels). Torch computes with one CPU thread inside. All is as before on exit, after an
    exception too.

    An operation that adds in another order, or is not known, raises ``NotInvariantError``; with
    ``strict=False`` it runs as torch's own and is counted in ``InvariantReport.passed``. Fused
    attention always raises. Threads that are started inside compute as torch does.

    Raises:
        RuntimeError: on entry, if the mode is on in another thread, or in this one with other
            settings. Entering again with the same settings is no error.
    """
    return Invariant(strict=strict)


@contextmanager
def paused() -> Iterator[None]:
    """Compute as torch does, for what is called back from inside; nothing if the mode is off."""
    active = _active
    if active is None or active.thread != threading.get_ident():
        yield
        return
    before, active.mode.paused = active.mode.paused, True
    try:
        yield
    finally:
        active.mode.paused = before
