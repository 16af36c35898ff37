"""What somebody put in the place of torch's and transformers' functions in this process: a fresh
one, which is what runs a saved model, has none of it.

Nothing is run again to find out: code is put beside that of the file that it should come from.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from inspect import unwrap
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import torch
import transformers
import typing_extensions
from torch import nn

import kvparity
from kvparity_kernels.relied.torch import BUILTIN_LAYERS, BUILTINS

_FOLDERS = (
    *(f"{Path(each.__path__[0])}/" for each in (torch, transformers, kvparity)),
    str(typing_extensions.__file__),  # marks torch's own as deprecated
)
_STDLIB = f"{sysconfig.get_path('stdlib')}/"
_REGISTRIES = (
    ("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS"),
    ("transformers.masking_utils", "ALL_MASK_ATTENTION_FUNCTIONS"),
)
_BUILTIN = ((torch, BUILTINS), (nn.functional, BUILTIN_LAYERS))
"""Modules, and where what they have of C++ is kept beside them."""


def patched(model: nn.Module) -> Iterator[str]:
    """Functions that a model may call and that are no library's, in words."""
    for module in (torch, torch.functional, nn.functional):
        yield from _others(module, module.__name__)
    for owner, item in _BUILTIN:
        kept = item.get()
        for name in (each for each in dir(kept) if not each.startswith("__")):
            found = vars(owner).get(name)
            if not isinstance(found, FunctionType | None) and found != getattr(kept, name):
                yield _words(owner.__name__, name)
    yield from _others(torch.Tensor, "torch.Tensor")
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    for kind in sorted(kinds, key=lambda each: each.__qualname__):
        if kind.__module__.startswith("torch."):
            yield from _others(kind, f"{kind.__module__}.{kind.__qualname__}")
    yield from _registered(str(getattr(model.config, "_attn_implementation", "")))


def _registered(name: str) -> Iterator[str]:
    """The attention that the model's config names, and the file that it stands in."""
    for where, registry in _REGISTRIES:
        known = getattr(sys.modules.get(where), registry, {})
        if name not in known:
            continue
        found, module = known[name], getattr(known[name], "__module__", None)
        own = str(getattr(found, "__name__", ""))
        by_name = getattr(sys.modules.get(str(module)), own, None)
        expected = f"{name}_" if name in ("sdpa", "eager") else ""
        if by_name is not found or _other(found) or not own.startswith(expected):
            yield _words(f"{where}.{registry}", name)
        else:
            yield from _others(sys.modules[str(module)], str(module))


def _others(owner: ModuleType | type, words: str) -> Iterator[str]:
    for name, value in list(vars(owner).items()):
        if _other(getattr(value, "__func__", value)):
            yield _words(words, name)


def _other(value: object) -> bool:
    """Whether a function is of nobody's file, or not what its file makes of its name."""
    if not isinstance(value, FunctionType):
        return isinstance(value, partial)
    file, inner = value.__code__.co_filename, unwrap(value)
    if not _of_library(file):
        return not file.startswith("<")  # what dataclasses and the like compile
    if not isinstance(inner, FunctionType):
        return False
    if not _of_library(inner.__code__.co_filename):
        return True
    known = _codes(inner.__module__).get(inner.__qualname__)
    return known is not None and inner.__code__ not in known


def _of_library(file: str) -> bool:
    return file.startswith(_FOLDERS) or (file.startswith(_STDLIB) and "-packages" not in file)


@cache
def _codes(module: str) -> dict[str, set[CodeType]]:
    """What the file of a module defines, by qualified name; nothing of it is run."""
    spec = find_spec(module) if module in sys.modules else None
    read = getattr(spec.loader, "get_code", None) if spec is not None else None
    found: dict[str, set[CodeType]] = {}

    def look(code: CodeType, prefix: str) -> None:
        for each in code.co_consts:
            if isinstance(each, CodeType):
                name = f"{prefix}{each.co_name}"
                found.setdefault(name, set()).add(each)
                look(each, f"{name}.")

    if read is not None and (code := read(module)) is not None:
        look(code, "")
    return found


def _words(owner: str, name: str) -> str:
    return f"{owner}.{name} was replaced in this process"
