"""Whether a checkpoint keeps all of a model: what was saved, loaded, beside the model in hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain
from types import CodeType, FunctionType, MethodType, ModuleType

import torch
from torch import Tensor, nn

from kvparity.api.patched import patched

_ELSEWHERE = frozenset({"training", "gradient_checkpointing", "name_or_path", "is_quantized"})
"""Attributes that say where a model comes from, or that eval mode does not read."""
_VALUES = (bool, int, float, str, tuple, type(None))
_CALLED = (FunctionType, MethodType, partial)


def lost(model: nn.Module, loaded: object) -> Iterator[str]:
    """What is of ``model`` and not of ``loaded``, which was made of its checkpoint, in words."""
    assert isinstance(loaded, nn.Module), "transformers' models are"
    own, kept = dict(model.named_modules()), dict(loaded.named_modules())
    yield from _other_names("module", own.keys(), kept.keys())
    for name in (each for each in own if each in kept):
        found, expected = type(own[name]), type(kept[name])
        if found is not expected:
            other = expected.__name__
            yield f"module {name} is a {found.__name__}, by its class and config a {other}"
        yield from _other_attributes(name, vars(own[name]), vars(kept[name]))
    yield from _other_tensors(model, loaded)
    for each in {type(module): module for module in own.values()}:
        yield from _other_code(each)
    yield from patched(model)


def _other_names(what: str, own: Set[str], kept: Set[str]) -> Iterator[str]:
    for name in sorted(own ^ kept):
        has, does = ("has", "do not") if name in own else ("lacks", "do")
        yield f"it {has} the {what} {name}, which its class and config {does} have"


def _other_attributes(
    module: str, own: Mapping[str, object], kept: Mapping[str, object]
) -> Iterator[str]:
    """Numbers and functions that somebody set on a module."""
    for name in sorted(own.keys() | kept.keys()):
        found, expected = own.get(name), kept.get(name)
        if name == "config":
            for rule in ("_attn_implementation", "_experts_implementation"):
                one, other = (getattr(x, rule, None) for x in (found, expected))
                if one != other:
                    yield f"{rule} is {one!r} in module {module or 'itself'}, saved {other!r}"
        elif isinstance(found, _CALLED) or isinstance(expected, _CALLED):
            if not name.startswith("_gradient") and _code(found) != _code(expected):
                yield f"module {module or 'itself'} has its own {name}"
        elif name.startswith("_") or name in _ELSEWHERE:
            continue
        elif isinstance(found, _VALUES) and isinstance(expected, _VALUES) and found != expected:
            yield f"{_path(module, name)} is {found!r}, by its class and config {expected!r}"


def _other_tensors(model: nn.Module, loaded: nn.Module) -> Iterator[str]:
    """Parameters and buffers, also those that no checkpoint holds."""
    own, kept = (
        dict(chain(x.named_parameters(remove_duplicate=False), x.named_buffers()))
        for x in (model, loaded)
    )
    yield from _other_names("tensor", own.keys(), kept.keys())
    for name in (each for each in own if each in kept):
        found, expected = own[name].detach().cpu(), kept[name].detach().cpu()
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            one, other = (f"{x.dtype} {list(x.shape)}" for x in (found, expected))
            yield f"{name} is {one}, loaded {other}"
        elif not torch.equal(_bytes(found), _bytes(expected)):
            yield f"{name} is not what is loaded: nothing that is saved holds its values"


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().flatten().view(torch.uint8)


def _path(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _other_code(kind: type) -> Iterator[str]:
    """Functions of a class, and of the file that it stands in, that are not the file's."""
    module = sys.modules[kind.__module__]
    if not kind.__module__.startswith("transformers."):
        return
    read = _read_again(kind.__module__)
    for name, expected in vars(read).items():
        if isinstance(expected, FunctionType) and _code(vars(module).get(name)) != _code(expected):
            yield f"{kind.__module__}.{name} was replaced in this process"
    for name, expected in vars(vars(read).get(kind.__name__, object)).items():
        if isinstance(expected, FunctionType) and _code(vars(kind).get(name)) != _code(expected):
            yield f"{kind.__name__}.{name} was replaced in this process"


@cache
def _read_again(name: str) -> ModuleType:
    """The file of a module, as a process has it that has just begun."""
    file = sys.modules[name].__file__
    assert file is not None, "modules of models are files"
    spec = spec_from_file_location(name, file)
    assert spec is not None, "it was imported from there"
    assert spec.loader is not None, "and by a loader"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _code(function: object) -> CodeType | object:
    """What a function runs, without what wraps it in name alone."""
    if isinstance(function, partial):
        return _code(function.func), function.args, tuple(function.keywords.items())
    if isinstance(function, MethodType):
        function = function.__func__
    return function.__code__ if isinstance(function, FunctionType) else function
