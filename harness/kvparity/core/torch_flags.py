"""Process-wide switches that affect bits, and that must not change during a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.backends import cuda, cudnn


@dataclass(frozen=True)
class Flag:
    """One switch: how it is read, and how it is set to what was read."""

    name: str
    read: Callable[[], bool]
    write: Callable[[bool], object]


def _of(thing: object, name: str, words: str) -> Flag:
    return Flag(words, lambda: getattr(thing, name), lambda value: setattr(thing, name, value))


def _autocast(device: str) -> Flag:
    return Flag(
        f"autocast on {device}",
        lambda: torch.is_autocast_enabled(device),
        lambda value: torch.set_autocast_enabled(device, value),
    )


FLAGS: tuple[Flag, ...] = (
    Flag(
        "use_deterministic_algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    _of(cudnn, "benchmark", "cudnn.benchmark"),
    _of(cudnn, "deterministic", "cudnn.deterministic"),
    _of(cuda.matmul, "allow_fp16_reduced_precision_reduction", "float16 sums of reduced precision"),
    _of(
        cuda.matmul, "allow_bf16_reduced_precision_reduction", "bfloat16 sums of reduced precision"
    ),
    Flag("flash SDPA", cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    Flag("memory-efficient SDPA", cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    Flag("math SDPA", cuda.math_sdp_enabled, cuda.enable_math_sdp),
    Flag("cuDNN SDPA", cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    _autocast("cpu"),
    _autocast("cuda"),
    Flag(
        "flushing of denormal numbers",
        lambda: not (torch.tensor([2.0**-130]) * 2.0).item(),  # torch sets this and does not tell
        torch.set_flush_denormal,
    ),
)


def read() -> dict[str, bool]:
    """Every switch as it is."""
    return {flag.name: flag.read() for flag in FLAGS}


def turned(before: Mapping[str, bool]) -> str | None:
    """What differs from ``before``, in words, or None."""
    now = read()
    for name, was in before.items():
        if now[name] != was:
            return f"torch's {name} is {now[name]}"
    return None


def put_back(before: Mapping[str, bool]) -> None:
    """Set every switch that differs from ``before``."""
    for flag in FLAGS:
        if flag.name in before and flag.read() != before[flag.name]:
            flag.write(before[flag.name])
