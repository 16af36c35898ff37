"""What kvparity relies on in transformers beyond its documentation.

A name that moved is tried under its new and its old name here, and nowhere else.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from types import ModuleType
from typing import Protocol, TypeVar, cast

import torch

from kvparity.core.errors import UnsupportedError
from kvparity_kernels.relied import ReliedItem, gone

Function = TypeVar("Function", bound=Callable[..., object])


class _HasForward(Protocol):
    @property
    def forward(self) -> Callable[..., object]: ...


class _HasConfig(Protocol):
    @property
    def config(self) -> object: ...


class _Settings(Protocol):
    _attn_implementation: str
    num_hidden_layers: int


class _CountingLayer(Protocol):
    cumulative_length: torch.Tensor | int
    cumulative_length_int: int


_EAGER = "eager_attention_forward"

# The argument of a forward that takes the cache: since 5.24; before; before, of Mamba and xLSTM.
CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params")

_SEES = "see which attention each layer calls"
ATTENTIONS = ReliedItem(
    "transformers", ("transformers.modeling_utils:ALL_ATTENTION_FUNCTIONS",), _SEES
)
MASKS = ReliedItem(
    "transformers",
    ("transformers.masking_utils:ALL_MASK_ATTENTION_FUNCTIONS",),
    "give its own attention the mask of sdpa",
)
OVERLAY = ReliedItem(
    "transformers",
    ("transformers.masking_utils:sliding_window_overlay",),
    "plant a window that is one key short",
    ("sliding_window",),
)
MODEL_TYPES = ReliedItem(
    "transformers",
    ("transformers.models.auto.configuration_auto:CONFIG_MAPPING",),
    "tell which model types there are",
)
EXPORTABLE = ReliedItem(
    "transformers",
    ("transformers.integrations.executorch:TorchExportableModuleForDecoderOnlyLM",),
    "export a model as its users do",
)


@contextmanager
def replaced(item: ReliedItem, stand_in: Callable[..., object]) -> Iterator[None]:
    """``stand_in`` in the place of a function of transformers' own.

    Raises:
        GoneError: the function is gone.
    """
    before = item.get()
    module, _, name = next(n for n in item.names if ReliedItem("", (n,), "").find()).partition(":")
    setattr(sys.modules[module], name, stand_in)
    try:
        yield
    finally:
        setattr(sys.modules[module], name, before)


def cache_argument(model: _HasForward) -> str:
    """The name under which the forward of ``model`` takes its cache.

    Raises:
        UnsupportedError: it takes none under a name that is known here.
    """
    known = inspect.signature(model.forward).parameters
    for name in CACHE_ARGUMENTS:
        if name in known:
            return name
    raise UnsupportedError(
        f"the forward of {type(model).__name__} takes no cache (none of its arguments is called "
        f"{' or '.join(CACHE_ARGUMENTS)}), so it has no decoding step to verify"
    )


def given_cache(arguments: Mapping[str, object]) -> object | None:
    """The cache among the named arguments of a forward call, None if there is none."""
    for name in CACHE_ARGUMENTS:
        if arguments.get(name) is not None:
            return arguments[name]
    return None


def made_cache(output: object) -> object | None:
    """The cache that a forward call returned, None if it returned none.

    ``output`` is transformers' ``ModelOutput``, which names its fields as the arguments.
    """
    return given_cache(cast(Mapping[str, object], output))


def keeps_logits(model: _HasForward) -> bool:
    """Whether the forward of ``model`` computes the last rows of logits only, if asked to."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def attention_of(model: _HasConfig) -> str:
    """The attention that the layers of ``model`` ask for by its configuration.

    Raises:
        GoneError: the configuration does not say so.
    """
    try:
        return str(cast(_Settings, model.config)._attn_implementation)
    except AttributeError:
        what = f"`_attn_implementation` of {type(model.config).__name__}"
        raise gone("transformers", what, "tell which attention a model took") from None


def forget_sizes(model: object) -> None:
    """Drop the size (5.x) or the cache (4.x) that transformers keeps of a static ``generate()``.

    It makes the next static cache at least as large, and the size of a cache can move bits.
    """
    for name in ("_previous_max_cache_length", "_cache"):
        model.__dict__.pop(name, None)


@cache
def unreset() -> str | None:
    """Why a growing cache cannot be used again after its ``reset()``, or None.

    Before transformers 5 it fills its keys with zeros and keeps as many of them.
    """
    cache = import_module("transformers").DynamicCache()
    one = torch.ones(1, 1, 1, 1)
    cache.update(one, one, 0)
    cache.reset()
    if not cache.get_seq_length():
        return None
    return (
        f"reset() of the dynamic cache of transformers {metadata.version('transformers')}, which "
        "keeps as many keys as there were; use cache: static, or transformers 5"
    )


@cache
def untraceable() -> str | None:
    """Why the forward of a model over a static cache cannot be a traced program, or None.

    Before transformers 5 its export uses sdpa whatever was requested, and a static cache finds
    its length by looking for zeros, which torch.compile cannot follow.
    """
    if counts_tokens(import_module("transformers").StaticLayer(1)):
        return None
    return (
        f"a traced program with transformers {metadata.version('transformers')}, whose static "
        "cache cannot be traced as it is used; use transformers 5"
    )


def counts_tokens(layer: object) -> bool:
    """Whether a static layer counts the tokens that it was given.

    Before transformers 5 a layer without a window takes the slots that are not all zero for its
    length, so what it does not use must hold zeros.
    """
    return hasattr(layer, "cumulative_length")


def set_count(layer: object, tokens: int, held: int) -> None:
    """Tell a static layer that it was given ``tokens`` and holds ``held`` of them."""
    if not counts_tokens(layer):
        return
    counting = cast(_CountingLayer, layer)
    if isinstance(counting.cumulative_length, int):  # transformers 4
        counting.cumulative_length = tokens
        return
    counting.cumulative_length.fill_(held)
    if hasattr(layer, "cumulative_length_int"):
        counting.cumulative_length_int = tokens


def sharing(config: object) -> list[str | None]:
    """For each layer of a model whether it reads another one's cache (``"reuse"``), or is read.

    ``"store"``: read by the later layers of its type; None: neither. ``kv_sharing_modes`` says so
    since transformers 5; before, the last ``num_kv_shared_layers`` read the last one of their own
    type before them.
    """
    modes = getattr(config, "kv_sharing_modes", None)
    if modes:
        return list(modes)
    count = cast(_Settings, config).num_hidden_layers
    shared = getattr(config, "num_kv_shared_layers", None) or 0
    own = count - shared
    types = getattr(config, "layer_types", None) or [""] * count
    stores = {max(i for i in range(own) if types[i] == kind) for kind in set(types[own:])}
    return ["store" if i in stores else None for i in range(own)] + ["reuse"] * shared


@contextmanager
def attention_functions(wrap: Callable[[str, Function], Function]) -> Iterator[None]:
    """Every attention function that a layer may call is what ``wrap`` makes of it.

    A layer asks the mapping for it, and for ``eager`` takes the one of its own module: through
    ``get_interface`` since transformers 5, by its name ``eager_attention_forward`` before.

    Raises:
        GoneError: the mapping is not as it was.
    """
    mapping = ATTENTIONS.get()
    try:
        local, before = mapping._local_mapping, dict(mapping._local_mapping)
    except AttributeError:
        what = f"`_local_mapping` of {type(mapping).__name__}"
        raise gone("transformers", what, _SEES) from None
    ask = getattr(mapping, "get_interface", None)
    modules = [] if ask is not None else _with_eager()
    eager: dict[str, Function] = {name: getattr(module, _EAGER) for name, module in modules}

    def get_interface(name: str, default: Function) -> Function:
        assert ask is not None, "only put in the place of one that is there"
        found: Function = ask(name, default)
        return wrap(name, found) if found is default else found

    try:
        for name, function in {name: mapping[name] for name in list(mapping)}.items():
            mapping[name] = wrap(name, function)
        if ask is not None:
            mapping.get_interface = get_interface
        for name, module in modules:
            setattr(module, _EAGER, wrap("eager", eager[name]))
        yield
    finally:
        mapping.__dict__.pop("get_interface", None)
        local.clear()
        local.update(before)
        for name, module in modules:
            setattr(module, _EAGER, eager[name])


def _with_eager() -> list[tuple[str, ModuleType]]:
    """The modules of models that are loaded and have an eager attention of their own."""
    return [
        (name, module)
        for name, module in list(sys.modules.items())
        if name.startswith("transformers.models.") and _EAGER in getattr(module, "__dict__", {})
    ]
