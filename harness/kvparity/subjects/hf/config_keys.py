"""Which keys a configuration class of transformers takes: those it lists, and those it reads.

A class takes any keyword and keeps what it does not know as an attribute that nobody reads, so a
misspelt key would be lost. What is read without being listed (old names such as ``rotary_pct``,
``partial_rotary_factor`` beside ``rope_parameters``, ``head_dim`` of a model that has a default for
it) stands in the source of the class and of its model alone.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import FunctionType, ModuleType

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from kvparity.core.relied.transformers import MODEL_TYPES
from kvparity_contracts.json_types import JsonObject, JsonValue

# What every config class accepts beside its own keys, and what belongs elsewhere in the contract.
_ALSO_KNOWN = frozenset({"rope_theta", "rope_scaling", "experts_implementation"})
_STATED_ELSEWHERE = {
    "dtype": "numerics.execution",
    "torch_dtype": "numerics.execution",
    "attn_implementation": "subject.attention",
    "_attn_implementation": "subject.attention",
}
# Methods that take the keywords of a configuration which are no fields of it.
_TAKERS = ("__init__", "__post_init__", "convert_rope_params_to_dict")


def check(model_type: JsonValue, rest: JsonObject) -> None:
    """Raise ``ValueError`` for an unknown ``model_type`` or key, with what may have been meant."""
    if model_type not in MODEL_TYPES.get():
        near = difflib.get_close_matches(str(model_type), list(MODEL_TYPES.get().keys()), 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"transformers knows no model_type {model_type!r}{hint}")
    for key in rest:
        if key in _STATED_ELSEWHERE:
            raise ValueError(
                f"config.{key} does not belong here; state it in {_STATED_ELSEWHERE[key]}"
            )
    kind = MODEL_TYPES.get()[model_type]
    known = listed(kind)
    if set(rest) <= known:
        return
    known |= taken(kind, "rope_parameters" in known) | read(kind)
    for key in rest:
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"config.{key} is not a setting of a {model_type} model{hint}")


def listed(kind: type) -> set[str]:
    """The keys that a configuration class lists."""
    found = set(kind().to_dict()) | set(inspect.signature(kind).parameters)
    return found | set(getattr(kind, "attribute_map", ())) | _ALSO_KNOWN


def taken(kind: type, rotary: bool) -> set[str]:
    """The keywords that its methods look for; those of RoPE only where it has any."""
    methods = [
        cls.__dict__[name]
        for cls in kind.__mro__
        for name in _TAKERS
        if name in cls.__dict__ and (rotary or name != "convert_rope_params_to_dict")
    ]
    return {key for method in methods for key in _looked_for(_tree(method))}


def read(kind: type) -> set[str]:
    """The attributes of a configuration that its causal language model's module reads."""
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(kind, None)
    if model is None:
        return set()
    return set(_read(_tree(sys.modules[model.__module__])))


def _tree(thing: FunctionType | ModuleType) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError):  # it has no source
        return ast.Module([], [])


def _looked_for(tree: ast.AST) -> Iterator[str]:
    """``NAME`` of ``kwargs.pop("NAME", ...)`` and ``kwargs.get("NAME", ...)``."""
    for call in _calls(tree, "kwargs.pop", "kwargs.get"):
        if call.args:
            yield from _text(call.args[0])


def _read(tree: ast.AST) -> Iterator[str]:
    """``NAME`` of ``config.NAME``, ``getattr(config, "NAME")``, on any name that ends in config."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("config"):
            yield node.attr
    for call in _calls(tree, "getattr", "hasattr"):
        if len(call.args) > 1 and ast.unparse(call.args[0]).endswith("config"):
            yield from _text(call.args[1])


def _calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def _text(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
