"""What a verdict was reached with: versions, device and flags, read back from the libraries."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from kvparity.core import interrupts, offline, replaced, sight, torch_flags
from kvparity.core import versions as tested
from kvparity.core.values import Json, Value
from kvparity.core.versions import versions as versions
from kvparity_kernels import runtime

_found: dict[str, bool] = {}
"""The switches as this process was settled with them."""
_functions: replaced.Known = {}
_handlers: dict[int, interrupts.Handler] = {}
"""Functions and signals' handlers, likewise."""
_looks = (replaced.watching(_functions),)
"""The check of them. In a tuple: a function here would itself count as replaced when it changes."""
_VARIABLES = ("TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """The device's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def overridden(device: str) -> str | None:
    """Why a contract's TF32 cannot be off on this device, or None."""
    if device.startswith("cuda") and os.environ.get("NVIDIA_TF32_OVERRIDE", "0") != "0":
        return (
            "NVIDIA_TF32_OVERRIDE is set, which turns TF32 on behind every flag; contracts state "
            "that it is off: unset it"
        )
    return None


def settle() -> None:
    """Make this process compute as every other one of a verification does.

    TF32 is off, as every contract states. torch uses one CPU thread: a library may cut its sums by
    the number of threads, and neither ``--jobs`` nor a replay may change bits. Other switches stay
    as they are, and are remembered, and so are the functions that a comparison rests on. Libraries
    of model hubs are offline.
    """
    global _functions, _handlers, _looks
    offline.ensure()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    _found.update(torch_flags.read())
    watched, _handlers = replaced.watched(), replaced.handlers()
    _functions, _looks = watched.known, (watched.look,)


def settle_again() -> None:
    """As :func:`settle`, with the switches and functions as that one found them."""
    replaced.put_back(_functions)
    for number, handler in _handlers.items():
        signal.signal(number, handler)
    torch_flags.put_back(_found)
    settle()


def unsettled() -> str | None:
    """What is no longer as :func:`settle` left it, or None.

    A subject may set such things when it is imported or called. They are global: the other side
    and the comparison would compute with them, and the report would not know.
    """
    tf32: tuple[_HasTf32, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    found = {
        "TF32 is on": any(map(_tf32, tf32)),
        f"torch computes with {torch.get_num_threads()} threads": torch.get_num_threads() != 1,
        f"torch's default dtype is {torch.get_default_dtype()}": (
            torch.get_default_dtype() != torch.float32
        ),
        f"torch's default device is {torch.get_default_device()}": (
            torch.get_default_device().type != "cpu"
        ),
    }
    return (
        next((words for words, off in found.items() if off), None)
        or torch_flags.turned(_found)
        or _looks[0]()
        or replaced.handled(_handlers)
        or sight.blind()
    )


def watching() -> Callable[[], str | None]:
    """The look at functions that :func:`unsettled` takes, bound now."""
    return _looks[0]


class _HasTf32(Protocol):
    allow_tf32: bool


def _tf32(backend: _HasTf32) -> bool:
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:  # set through the newer fp32_precision, which this flag cannot tell
        return True


class Tf32(Value):
    """Whether torch may round float32 operands of products to TF32, by library."""

    matmul: bool
    """whether torch's matrix products may round to TF32, read back from torch"""
    cudnn: bool
    """whether cuDNN may"""


class ReducedPrecision(Value):
    """Whether a matrix product may sum in less than float32, by the type of its operands."""

    float16: bool
    """torch's flag for sums in float16, read back"""
    bfloat16: bool
    """torch's flag for sums in bfloat16, read back"""


class Environment(Value):
    """The ``environment`` of a run and of other documents. It alone writes that part."""

    python: str
    """version"""
    platform: str
    """operating system"""
    versions: dict[str, str | None]
    """version of each package that can affect bits; null if it is not installed"""
    outside_tested: str | None
    """which of Python, torch, Triton, transformers, NumPy and pydantic are outside the versions
    that kvparity was tested with, in words; null: none"""
    device: str
    """`cpu`, `cuda`, `cuda:N`"""
    device_name: str
    """the processor's or the GPU's own name"""
    triton_mode: runtime.Mode
    """`interpreter` or `compiled`"""
    tf32: Tf32
    reduced_precision_reduction: ReducedPrecision
    threads: int
    """CPU threads of torch in the main process"""
    numerics_device: str | None = None
    """the architecture whose products were computed ([device numerics](device-numerics.md)); null:
    none"""
    variables: dict[str, str]
    """environment variables that can affect bits, if they are set"""


EnvironmentDocument = Json
"""An environment's document, for readers."""


class CudaEnvironment(Environment):
    """On a CUDA device."""

    capability: tuple[int, int]
    """compute capability (CUDA only)"""
    cuda: str | None
    """CUDA version of torch (CUDA only)"""


def environment(device: torch.device, modelled: str | None = None) -> Environment:
    """Versions, device and flags as they are now; ``modelled``: whose products are computed."""
    flags = torch.backends.cuda.matmul
    found = Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        versions=versions(),
        outside_tested=tested.here(),
        device=str(device),
        device_name=device_name(device),
        triton_mode=runtime.mode(),
        tf32=Tf32(matmul=flags.allow_tf32, cudnn=torch.backends.cudnn.allow_tf32),
        reduced_precision_reduction=ReducedPrecision(
            float16=flags.allow_fp16_reduced_precision_reduction,
            bfloat16=flags.allow_bf16_reduced_precision_reduction,
        ),
        threads=torch.get_num_threads(),
        numerics_device=modelled,
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )
    if device.type != "cuda":
        return found
    return CudaEnvironment(
        **dict(found),
        capability=torch.cuda.get_device_capability(device),
        cuda=torch.version.cuda,
    )
