"""Compile forms of kernels for a GPU that need not be here, as Triton does at a launch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from gpu_recording import Form
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver


class Elsewhere:
    """What Triton asks of a device before it compiles, answered for one that is not here."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        """A number for each architecture, under which Triton keeps its kernels."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """None is used."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """The architecture."""
        return GPUTarget("cuda", self.capability, 32)


def build(form: Form, capability: int) -> str | None:
    """Compile one form into Triton's cache; why it does not compile, or None."""
    driver.set_active(Elsewhere(capability))
    module, name = form.kernel
    kernel = getattr(importlib.import_module(module), name)
    try:
        kernel.function.warmup(grid=(1,), **{key: _value(value) for key, value in form.values})
    except Exception as error:  # whatever Triton raises belongs to this kernel alone
        return f"{form.name} for sm_{capability}: {type(error).__name__}: {error}"[-2000:]
    return None


def _value(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.empty(0, dtype=value, device="meta")
    return value(1) if value in (int, float) else value


def build_all(work: Sequence[tuple[Form, int]], processes: int) -> list[str]:
    """Compile in so many processes, each taking what is next; what does not compile."""
    if not work:
        return []
    forms, capabilities = zip(*sorted(work, key=_weight), strict=True)
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        results = pool.map(build, forms, capabilities)
        hidden = not sys.stderr.isatty()
        return [e for e in tqdm(results, total=len(work), unit=" kernels", disable=hidden) if e]


def _weight(item: tuple[Form, int]) -> tuple[bool, int]:
    """What takes longest comes first: float32 matrices, and wide heads."""
    values = dict(item[0].values)
    dot = values.get("Q", values.get("X"))
    return dot != torch.float32, -int(values.get("D", 0))
