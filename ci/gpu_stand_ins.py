"""Stand-ins for libraries of others while launches are recorded: right shapes, and zeros."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from kvparity.pairs import flashinfer as pairs
from kvparity.relied import flashinfer as relied


class _Wrapper:
    """Both of FlashInfer's wrappers: takes the calls that are relied on, and no others."""

    _backend = "fa2"
    _name: str

    def __init__(self, *places: Any, **names: Any) -> None:
        self._told("__init__", *places, **names)

    def plan(self, *places: Any, **names: Any) -> None:
        self._told("plan", *places, **names)

    def _told(self, method: str, *places: Any, **names: Any) -> None:
        relied.declared(self._name, method).bind(*places, **names)

    def run(self, q: Tensor, *places: Any, return_lse: bool = False, **names: Any) -> Any:
        self._told("run", q, *places, return_lse=return_lse, **names)
        out = torch.zeros_like(q)
        lse = torch.zeros(q.shape[:2], dtype=torch.float32, device=q.device)
        return (out, lse) if return_lse else out


@contextmanager
def flashinfer() -> Iterator[None]:
    """FlashInfer as far as it is called here; its kernels are its own and none of ours."""
    module = ModuleType("flashinfer")
    module.__spec__ = ModuleSpec("flashinfer", None)
    module.__version__ = "0"
    for name in (relied.PREFILL, relied.DECODE):
        setattr(module, name, type(name, (_Wrapper,), {"_name": name}))
    with (
        mock.patch.dict(sys.modules, {"flashinfer": module}),
        mock.patch.object(pairs, "WORKSPACE_BYTES", 1),
    ):
        yield
