"""Which kernels a step of ci/gpu would launch, found by running the step without computing.

The step's own command runs in this process on a pretended device. A launch notes its kernel and
fills the outputs with zeros, so that the code behind it goes on; what costs time and decides no
kernel (drawing large weights, float64 oracles, other libraries in the bench) is left out. What the
step then says of its zeros means nothing; that it came to an end does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest import mock

import torch

from kvparity_kernels import launch as launcher

LAUNCH = launcher.launch  # the real one
LARGE = 1 << 22  # elements; of so many nothing is drawn


@dataclass(frozen=True)
class Form:
    """One compiled form of a kernel: constants and options, and the format of every pointer.

    ``kernel``: module and attribute. ``values``: name and value of each argument that decides
    what is compiled: constants, ``None``, and for the rest ``float``, ``int`` or a torch dtype.
    """

    kernel: tuple[str, str]
    values: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """The kernel's own name."""
        return self.kernel[1]

    def __str__(self) -> str:
        """For people."""
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in self.values)})"


def form(kernel: launcher.Kernel, arguments: dict[str, Any]) -> Form:
    """What decides how a launch is compiled."""
    values: list[tuple[str, Any]] = []
    for name, value in sorted(arguments.items()):
        if isinstance(value, torch.Tensor):
            values.append((name, value.dtype))
        elif name in kernel.scalars:
            values.append((name, float if isinstance(value, float) else int))
        else:
            values.append((name, value))
    function = kernel.function.fn
    return Form((function.__module__, function.__name__), tuple(values))


@cache
def outputs(kernel: launcher.Kernel) -> frozenset[str]:
    """The pointers that a kernel stores through, by its source.

    Raises ``LookupError`` if it seems to store through none: then it is not understood here.
    """
    text = kernel.function.src
    stored = set(re.findall(r"tl\.store\(\s*(\w+)", text))
    made = dict(re.findall(r"^\s*(\w+) = \(?([A-Z][A-Z_]*)\b", text, re.MULTILINE))
    found = {made.get(name, name) for name in stored} & kernel.pointers
    if not found:
        raise LookupError(f"{kernel.name} stores through {sorted(stored)}; expected pointers")
    return frozenset(found)


_seen: set[Form] = set()  # by this process; a step has one of its own


def note(kernel: launcher.Kernel, arguments: dict[str, Any]) -> Form:
    """Note that a kernel is launched, or compiled, with these arguments and options."""
    found = form(kernel, arguments)
    _seen.add(found)
    return found


def forget() -> set[Form]:
    """What was noted so far, which then is not."""
    found = set(_seen)
    _seen.clear()
    return found


@contextmanager
def launches_recorded() -> Iterator[set[Form]]:
    """Note every launch, and give its outputs zeros."""

    def launch(kernel: Any, grid: Any, /, *values: Any, num_warps: int = 4, num_stages: int = 2,
             **named: Any) -> None:  # fmt: skip
        arguments = {**dict(zip(kernel.parameters, values, strict=False)), **named}
        if torch.overrides._get_current_function_mode() is not None:  # inside an operator of ours
            launcher._check(kernel, grid, arguments)
        if 0 in grid:
            return
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}
        one = note(kernel, arguments | options)
        for name in outputs(kernel):
            if arguments[name] is not None:
                arguments[name].zero_()
        facts = {name: value for name, value in one.values if name in kernel.constexprs}
        for log in launcher._logs.get():
            log.add(kernel.name, {"constexprs": facts, "hash": str(one)})

    with mock.patch.object(launcher, "launch", launch):
        yield _seen


@contextmanager
def less_work() -> Iterator[None]:
    """Leave out what takes time and decides no kernel: layers that are alike, weights, oracles."""
    from kvparity.subjects.decoder import oracle, presets, seeded, subject

    small = {
        name: replace(config, layers=1) if config.hidden >= 512 else config
        for name, config in presets.PRESETS.items()
    }

    def logits(config: Any, weights: Any, cos: Any, sin: Any, ids: Any, rows: Any, **_: Any) -> Any:
        return torch.zeros(len(rows), config.vocab, dtype=torch.float64, device=cos.device)

    def draw(config: Any, name: str, shape: Any, seed: int, dtype: Any, device: Any) -> Any:
        return torch.zeros(shape, dtype=dtype, device=device)

    with ExitStack() as stack:
        for owner, name, new in (
            (presets, "PRESETS", small),
            (oracle, "logits", logits),
            (subject, "fingerprint", lambda weights: "not taken"),
            (seeded, "draw", draw),
            (torch, "randn", _drawn(torch.randn)),
            (torch.Tensor, "normal_", _kept(torch.Tensor.normal_)),
        ):
            stack.enter_context(mock.patch.object(owner, name, new))
        yield


def _drawn(real: Callable[..., Any]) -> Callable[..., Any]:
    def randn(*sizes: Any, **more: Any) -> torch.Tensor:
        shape = torch.Size(sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes)
        if shape.numel() < LARGE:
            return real(*sizes, **more)
        more.pop("generator", None)
        return torch.zeros(shape, **more)

    return randn


def _kept(real: Callable[..., Any]) -> Callable[..., Any]:
    def normal_(x: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        return real(x, *arguments, **more) if x.numel() < LARGE else x

    return normal_
