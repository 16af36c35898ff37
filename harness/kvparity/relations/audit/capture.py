"""What would be launched, without launching it: the arguments of every kernel, on its way out.

Code runs unchanged on tensors without data (``device="meta"``), up to the launch: its checks, its
tiles and its options are those of a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch

from kvparity_kernels import launch as launcher
from kvparity_kernels.launch import Kernel

Argument: TypeAlias = torch.Tensor | float | str | None  # whole numbers and truth values, too


class Launch(NamedTuple):
    """A kernel, and all its arguments and options by name."""

    kernel: Kernel
    arguments: dict[str, Argument]

    @property
    def form(self) -> tuple[str, ...]:
        """What decides how it is compiled: the same for two launches of one binary."""
        return (self.kernel.name, *(self._fact(name) for name in sorted(self.arguments)))

    def _fact(self, name: str) -> str:
        value = self.arguments[name]
        if isinstance(value, torch.Tensor):
            return f"{name}={value.dtype}"
        if name in self.kernel.scalars:
            return f"{name}={'float' if isinstance(value, float) else 'int'}"
        return f"{name}={value}"


class _Recorder:
    """Stands in for a compiled function: keeps the arguments of the launch."""

    hash = "not launched"

    def __init__(self, kernel: Kernel, seen: list[Launch]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., _Recorder]:
        def call(**arguments: Argument) -> _Recorder:
            self.seen.append(Launch(self.kernel, arguments))
            return self

        return call


@contextmanager
def captured() -> Iterator[list[Launch]]:
    """Note what is launched instead of launching it; only where kernels are compiled."""
    seen: list[Launch] = []
    real, enter = launcher.launch, torch.cuda.device

    def note(kernel: Kernel, grid: tuple[int, ...], /, *values: Argument, **named: object) -> None:
        recorder = replace(kernel, function=_Recorder(kernel, seen))
        real(recorder, grid, *values, **named)  # type: ignore[arg-type] # it checks its arguments

    try:
        vars(launcher)["launch"] = note
        vars(torch.cuda)["device"] = lambda _: nullcontext()  # there is none to enter
        yield seen
    finally:
        vars(torch.cuda)["device"] = enter
        vars(launcher)["launch"] = real
