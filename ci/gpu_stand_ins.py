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


class _Wrapper:
    """Both of FlashInfer's wrappers."""

    _backend = "fa2"

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def plan(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, q: Tensor, *_: Any, return_lse: bool = False, **__: Any) -> Any:
        out = torch.zeros_like(q)
        lse = torch.zeros(q.shape[:2], dtype=torch.float32, device=q.device)
        return (out, lse) if return_lse else out


@contextmanager
def flashinfer() -> Iterator[None]:
    """FlashInfer as far as it is called here; its kernels are its own and none of ours."""
    module = ModuleType("flashinfer")
    module.__spec__ = ModuleSpec("flashinfer", None)
    module.__version__ = "0"
    for name in ("BatchPrefillWithPagedKVCacheWrapper", "BatchDecodeWithPagedKVCacheWrapper"):
        setattr(module, name, _Wrapper)
    with (
        mock.patch.dict(sys.modules, {"flashinfer": module}),
        mock.patch.object(pairs, "WORKSPACE_BYTES", 1),
    ):
        yield
