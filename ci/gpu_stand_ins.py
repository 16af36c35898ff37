"""Stand-ins for libraries of others while launches are recorded: right shapes, and zeros."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from kvparity.core.relied import flashinfer as relied
from kvparity.pairs import flashinfer as pairs

METHODS = ("__init__", "plan", "run")


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


def _wrapper(name: str) -> type[_Wrapper]:
    """A wrapper whose methods have the signatures that are relied on, as those of the library."""

    def method(which: str) -> Any:
        def call(self: _Wrapper, *places: Any, **names: Any) -> Any:
            return getattr(_Wrapper, which)(self, *places, **names)

        own = Parameter("self", Parameter.POSITIONAL_ONLY)
        given = relied.declared(name, which)
        call.__signature__ = Signature([own, *given.parameters.values()])  # type: ignore[attr-defined]
        return call

    return type(name, (_Wrapper,), {"_name": name, **{m: method(m) for m in METHODS}})


@contextmanager
def flashinfer() -> Iterator[None]:
    """FlashInfer as far as it is called here; its kernels are its own and none of ours."""
    module = ModuleType("flashinfer")
    module.__spec__ = ModuleSpec("flashinfer", None)
    module.__version__ = "0"
    for name in (relied.PREFILL, relied.DECODE):
        setattr(module, name, _wrapper(name))
    with (
        mock.patch.dict(sys.modules, {"flashinfer": module}),
        mock.patch.object(pairs, "WORKSPACE_BYTES", 1),
    ):
        yield
