"""What kvparity relies on in transformers' mixtures of experts beyond their documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from torch import nn

from kvparity_kernels.relied import gone


class _Experts(Protocol):
    def set_experts_implementation(self, name: str) -> None: ...


class _Configured(Protocol):
    @property
    def config(self) -> _HasTextConfig: ...


class _HasTextConfig(Protocol):
    def get_text_config(self, *, decoder: bool) -> object: ...


class _Decoding(Protocol):
    def get_decoder(self) -> object: ...


class _Layers(Protocol):
    layers: Sequence[nn.Module]


def eager_experts(model: object) -> None:
    """Let a mixture of experts compute one expert at a time; nothing for a model that has none."""
    able = getattr(model, "_can_set_experts_implementation", None)  # since transformers 5
    if able is not None and able():
        cast(_Experts, model).set_experts_implementation("eager")


def experts_of(model: object) -> tuple[int, int] | None:
    """How many experts a layer of ``model`` has, and how many a token takes; None: it has none."""
    config = cast(_Configured, model).config.get_text_config(decoder=True)
    taken = getattr(config, "num_experts_per_tok", None)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    found = [count for name in names if isinstance(count := getattr(config, name, None), int)]
    return (found[0], taken) if isinstance(taken, int) and found and found[0] > 1 else None


def decoder_layers(model: object) -> Sequence[nn.Module]:
    """The layers of a causal language model, the first first.

    Raises:
        GoneError: they are not where every model that has experts keeps them.
    """
    try:
        return cast(_Layers, cast(_Decoding, model).get_decoder()).layers
    except AttributeError:
        what = f"`get_decoder().layers` of {type(model).__name__}"
        raise gone("transformers", what, "tell which layer chooses experts") from None
