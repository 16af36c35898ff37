"""The one place that launches kernels: checked arguments, fixed options, a record of what ran."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, overload

import torch

from kvparity_kernels import device_model, row_trees, runtime, stream
from kvparity_kernels.stream import Launched

MODE = runtime.freeze()  # before Triton is imported: it reads the choice when it decorates

import triton  # noqa: E402 - see above

if MODE == "interpreter":
    from kvparity_kernels import interpreter

    interpreter.install()

_GRID_LIMITS = (2**31 - 1, 65535, 65535)  # CUDA's, kept in the interpreter too
_ALIGNMENT = 16  # bytes; what Triton specialises pointers on
_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "grid", "kernel")


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be launched, and what its parameters are."""

    name: str
    function: Any
    parameters: tuple[str, ...]
    constexprs: frozenset[str]
    pointers: frozenset[str]
    scalars: frozenset[str]
    unaligned: frozenset[str]


@overload
def kernel(fn: Callable[..., Any]) -> Kernel: ...
@overload
def kernel(*, unaligned: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Kernel]: ...
def kernel(
    fn: Callable[..., Any] | None = None, *, unaligned: tuple[str, ...] = ()
) -> Kernel | Callable[[Callable[..., Any]], Kernel]:
    """Declare a kernel. Device functions that kernels call take plain ``@triton.jit``.

    Pointers are named in capitals, scalars in small letters, constants are annotated
    ``tl.constexpr``. Scalars are never specialised, so a kernel is compiled once for all lengths
    and strides. Pointers are promised to be aligned to 16 bytes (``launch`` checks it), except
    those listed in ``unaligned``, of which nothing is promised: so alignment, which can change
    how a reduction is laid out over threads, never varies between launches.
    """

    def declare(fn: Callable[..., Any]) -> Kernel:
        constexprs: set[str] = set()
        pointers: set[str] = set()
        scalars: set[str] = set()
        for name, parameter in inspect.signature(fn).parameters.items():
            if name in _OPTIONS or parameter.default is not inspect.Parameter.empty:
                raise TypeError(f"{fn.__name__}: parameter {name} is reserved or has a default")
            if "constexpr" in str(parameter.annotation):
                constexprs.add(name)
            else:
                (pointers if name == name.upper() else scalars).add(name)
        if stray := set(unaligned) - pointers:
            raise TypeError(f"{fn.__name__}: unaligned names no pointer: {sorted(stray)}")
        decorate = triton.jit(
            do_not_specialize=sorted(scalars | set(unaligned)),
            do_not_specialize_on_alignment=sorted(scalars | set(unaligned)),
        )
        module = fn.__module__.split(".")
        home = module[-2] if module[-1] == "kernels" and len(module) > 1 else module[-1]
        return Kernel(
            f"{home}.{fn.__name__}",
            decorate(fn),
            tuple(inspect.signature(fn).parameters),
            frozenset(constexprs),
            frozenset(pointers),
            frozenset(scalars),
            frozenset(unaligned),
        )

    return declare if fn is None else declare(fn)


@dataclass
class LaunchLog:
    """What was launched while the log was open.

    ``counts``: launches per kernel name. ``kernels``: name to constexprs, dtypes, options, mode and
    the hash of the compiled code; a kernel that ran in a second form has a second entry
    (``"attention.prefill [2]"``).
    """

    counts: Counter[str] = field(default_factory=Counter)
    kernels: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, facts: dict[str, Any]) -> None:
        """Count one launch and keep its facts if they are new."""
        self.counts[name] += 1
        key, number = name, 1
        while self.kernels.setdefault(key, facts) != facts:
            number += 1
            key = f"{name} [{number}]"


@contextmanager
def record() -> Iterator[LaunchLog]:
    """Record all launches of this context; logs that are open at once all see them."""
    log = LaunchLog()
    with stream.listening(Launched, lambda event: log.add(event.name, event.facts)):
        yield log


def launch(
    kernel: Kernel,
    grid: tuple[int, ...],
    /,
    *values: Any,
    num_warps: int = 4,
    num_stages: int = 2,
    **named: Any,
) -> None:
    """Launch a kernel over ``grid`` with its arguments; an empty grid launches nothing.

    Floating-point contraction is off at every launch. Raises ``TypeError`` for arguments that do
    not fit the declaration, ``ValueError`` for tensors on the wrong device for the mode, unaligned
    pointers, or a grid beyond CUDA's limits.
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"{kernel!r} is not declared with @kvparity_kernels.launch.kernel")
    arguments = dict(zip(kernel.parameters, values, strict=False))
    if len(values) > len(kernel.parameters) or arguments.keys() & named.keys():
        raise TypeError(f"{kernel.name}: an argument is given twice, or there are too many")
    arguments.update(named)
    device = _check(kernel, grid, arguments)
    if 0 in grid:
        return
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": False}
    # The interpreter drops names that are not parameters (Triton 3.6 to 3.9), so the options can
    # be passed in both modes and a test can see that they are.
    if MODE == "interpreter":
        model = device_model.in_force()
        tree = model and row_trees.of_launch(model, kernel.name, arguments, num_warps)
        with interpreter.quiet(), row_trees.using(tree or None):
            kernel.function[grid](**arguments, **options)
        code = "interpreter"
    else:
        with torch.cuda.device(device) if device is not None else nullcontext():
            code = kernel.function[grid](**arguments, **options).hash
    if stream.heard(Launched):
        facts = {
            "constexprs": {name: arguments[name] for name in sorted(kernel.constexprs)},
            "dtypes": {
                name: str(arguments[name].dtype).removeprefix("torch.")
                for name in sorted(kernel.pointers)
                if arguments[name] is not None
            },
            **options,
            "mode": MODE,
            "hash": code,
        }
        stream.emit(Launched(kernel.name, facts))


def _check(kernel: Kernel, grid: tuple[int, ...], arguments: dict[str, Any]) -> torch.device | None:
    if wrong := set(kernel.parameters).symmetric_difference(arguments):
        raise TypeError(f"{kernel.name}: arguments missing or unknown: {', '.join(sorted(wrong))}")
    for size, limit in zip(grid, _GRID_LIMITS, strict=False):
        if not 0 <= size <= limit:
            raise ValueError(
                f"{kernel.name}: grid {grid} is beyond the limits {_GRID_LIMITS}; use smaller steps"
            )
    for name in sorted(kernel.scalars):
        if not isinstance(arguments[name], (int, float)):
            raise TypeError(
                f"{kernel.name}: {name} is a {type(arguments[name]).__name__}, expected a number"
            )
    device: torch.device | None = None
    for name in (name for name in kernel.parameters if name in kernel.pointers):
        tensor = arguments[name]
        if tensor is None:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{kernel.name}: {name} is a {type(tensor).__name__}, not a tensor")
        if device is None:
            device = tensor.device
            if (device.type == "cpu") != (MODE == "interpreter"):
                raise ValueError(
                    f"{kernel.name}: {name} is on {device}, but this process runs {MODE} kernels "
                    f"({'tensors on the CPU' if MODE == 'interpreter' else 'CUDA tensors'} only); "
                    "call kvparity_kernels.runtime.select(device) before importing kernels"
                )
        elif tensor.device != device:
            raise ValueError(f"{kernel.name}: {name} is on {tensor.device}, others on {device}")
        if MODE == "compiled" and name not in kernel.unaligned and tensor.data_ptr() % _ALIGNMENT:
            raise ValueError(
                f"{kernel.name}: {name} starts at an address that is not a multiple of "
                f"{_ALIGNMENT} bytes; pass a copy (tensor.clone())"
            )
    return device
