"""What kvparity relies on in FlashInfer: every call that it makes, and what it takes for granted.

``CALLS`` is complete: the stand-in of the tests refuses a call that is not in it, and
:func:`gone` checks it against the installed library, which imports without a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

PREFILL = "BatchPrefillWithPagedKVCacheWrapper"
DECODE = "BatchDecodeWithPagedKVCacheWrapper"
WORKSPACE = ("float_workspace_buffer", "kv_layout")
PAGES = ("num_qo_heads", "num_kv_heads")
PLANNED = ("sm_scale", "q_data_type", "kv_data_type", "window_left", "logits_soft_cap")
CUTS = ("fixed_split_size", "disable_split_kv")
ROWS = ("q", "paged_kv_cache")


@dataclass(frozen=True)
class ReliedCall:
    """``positional``: the names of what is handed over by place; ``named``: by name, if at all."""

    wrapper: str
    method: str
    positional: tuple[str, ...]
    named: tuple[str, ...]


CALLS = (
    ReliedCall(PREFILL, "__init__", WORKSPACE, ("backend",)),
    ReliedCall(
        PREFILL,
        "plan",
        (
            *("qo_indptr", "paged_kv_indptr", "paged_kv_indices", "paged_kv_last_page_len"),
            *PAGES,
            "head_dim_qk",
            "page_size",
        ),
        ("causal", *PLANNED, *CUTS),
    ),
    ReliedCall(PREFILL, "run", ROWS, ("return_lse",)),
    ReliedCall(DECODE, "__init__", WORKSPACE, ("use_tensor_cores", "backend")),
    ReliedCall(
        DECODE,
        "plan",
        ("indptr", "indices", "last_page_len", *PAGES, "head_dim", "page_size"),
        (*PLANNED, *CUTS),
    ),
    ReliedCall(DECODE, "run", ROWS, ("return_lse",)),
)

DEFAULTS: Mapping[str, object] = {"lse_base": "log2", "lse_layout": "NH", "sinks": None}
"""Of ``run``, where it has them: an LSE to base 2 of shape ``[rows, heads]``, and no sinks."""
UNSET: Mapping[str, object] = {"window_left": -1, "logits_soft_cap": None}
"""Of ``plan``: what is left out is off."""


def call(wrapper: str, method: str) -> ReliedCall:
    """The entry of a method."""
    return next(c for c in CALLS if (c.wrapper, c.method) == (wrapper, method))


def declared(wrapper: str, method: str) -> inspect.Signature:
    """As a signature that binds what kvparity may hand over and nothing else."""
    found = call(wrapper, method)
    kinds = inspect.Parameter
    places = [kinds(name, kinds.POSITIONAL_ONLY) for name in found.positional]
    names = [kinds(name, kinds.KEYWORD_ONLY, default=UNSET.get(name)) for name in found.named]
    return inspect.Signature([*places, *names])


def gone(library: object) -> list[str]:
    """What of all this ``library`` no longer has, in words; empty if nothing is missing.

    Reads signatures and source; computes nothing and needs no device.
    """
    said = []
    for name in (PREFILL, DECODE):
        if not hasattr(library, name):
            said.append(f"flashinfer has no {name}")
            continue
        wrapper = getattr(library, name)
        for check in CHECKS:
            said += [f"flashinfer.{name}{words}" for words in check(name, wrapper)]
    return said


def _bound(method: str, name: str, wrapper: type) -> list[str]:
    """Is what is handed over by place and by name taken, in this order and under these names?"""
    if not hasattr(wrapper, method):
        return [f" has no {method}()"]
    wanted, parameters = call(name, method), _parameters(wrapper, method)
    places = [p.name for p in parameters.values() if p.kind in _BY_PLACE][1:]  # without self
    said = [
        f".{method}: argument {i} is {(places[i : i + 1] or ['not there'])[0]}, was {expected}"
        for i, expected in enumerate(wanted.positional)
        if places[i : i + 1] != [expected]
    ]
    known = {p.name for p in parameters.values() if p.kind in _BY_NAME}
    missing = [n for n in wanted.named if n not in known]
    said += [f".{method} takes no {n}" for n in missing]
    given = {*wanted.positional, *wanted.named}
    return said + [
        f".{method} needs {p.name}, which it is not given"
        for p in list(parameters.values())[1:]
        if p.default is p.empty and p.kind in (*_BY_PLACE, *_BY_NAME) and p.name not in given
    ]


def _defaults(method: str, expected: Mapping[str, object], name: str, wrapper: type) -> list[str]:
    parameters = _parameters(wrapper, method) if hasattr(wrapper, method) else {}
    return [
        f".{method}: {key} defaults to {parameters[key].default!r}, was {value!r}"
        for key, value in expected.items()
        if key in parameters and parameters[key].default != value
    ]


def _backend(name: str, wrapper: type) -> list[str]:
    """Wrappers note in ``_backend`` what they run: a replaced one must not go unseen."""
    if hasattr(wrapper, "_backend") or "self._backend = " in inspect.getsource(wrapper):
        return []
    return [" does not keep its backend in _backend, so that a replaced one would go unseen"]


CHECKS: tuple[Callable[[str, type], list[str]], ...] = (
    partial(_bound, "__init__"),
    partial(_bound, "plan"),
    partial(_bound, "run"),
    partial(_defaults, "run", DEFAULTS),
    partial(_defaults, "plan", UNSET),
    _backend,
)

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _parameters(wrapper: type, method: str) -> Mapping[str, inspect.Parameter]:
    """Of the method itself, or, where that passes all arguments on, of what it passes them to.

    Since 0.7.2 decode's ``plan(..., **kwargs)`` would take any name; ``_plan_impl`` does not.
    """
    found = inspect.signature(getattr(wrapper, method)).parameters
    inner = getattr(wrapper, f"_{method}_impl", None)
    if inner is not None and any(p.kind is p.VAR_KEYWORD for p in found.values()):
        return inspect.signature(inner).parameters
    return found
