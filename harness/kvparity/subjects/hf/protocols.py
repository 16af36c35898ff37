"""What is read of transformers' objects, as types that hold in every version that is supported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from kvparity_contracts.json_types import JsonObject

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]
"""(layer, query, key, value, mask, settings by name) -> (output, weights or None)."""


class ModelConfig(Protocol):
    """A configuration; what only some models have is asked for with ``getattr``."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_attention_heads: int

    def get_text_config(self, *, decoder: bool) -> ModelConfig:
        """The configuration of the language model, which may be the whole."""
        ...

    def to_dict(self) -> JsonObject:
        """All settings."""
        ...


class AttentionLayer(Protocol):
    """The module that calls an attention function. ``layer_idx``: its layer of the model."""

    layer_idx: int


class CacheLayer(Protocol):
    """A layer that stores: keys and values ``[B, kv_heads, slots, head_dim]``, or None so far.

    ``sliding_window``: of a dynamic sliding layer; ``max_cache_len``: the slots of a static one.
    """

    keys: Tensor
    values: Tensor
    is_sliding: bool
    cumulative_length: int
    sliding_window: int
    max_cache_len: int

    def crop(self, max_length: int) -> None:
        """Drop the newest columns: as many as a negative ``max_length`` says."""
        ...


class Cache(Protocol):
    """A cache as a model uses it. ``layers``: of some caches alone; those that store are
    ``CacheLayer``.
    """

    layers: list[object]
    update: Callable[..., tuple[Tensor, Tensor]]

    def get_seq_length(self) -> int:
        """The columns that it was given."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...

    def crop(self, max_length: int) -> None:
        """See ``CacheLayer.crop``."""
        ...


class ModelInputs(TypedDict):
    """What a forward call is given beside its cache, int64 ``[B, T]``; a mask ``[B, columns]``."""

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: NotRequired[Tensor]
    logits_to_keep: NotRequired[int]


class ModelOutput(Protocol):
    """What a forward call returns: ``logits [B, T, vocab]``."""

    logits: Tensor


class GenerationSettings(Protocol):
    """The settings of ``generate()``."""

    def to_diff_dict(self) -> JsonObject:
        """Those that differ from the defaults."""
        ...


class CausalLM(Protocol):
    """A ``PreTrainedModel`` with a language model's head."""

    config: ModelConfig
    generation_config: GenerationSettings
    dtype: torch.dtype
    device: torch.device
    forward: Callable[..., ModelOutput]

    def __call__(self, **inputs: object) -> ModelOutput:
        """``forward``, with the hooks."""
        ...

    def generate(self, inputs: Tensor, **settings: object) -> Tensor:
        """Token ids int64 ``[B, length]``, the given ones first."""
        ...

    def parameters(self) -> Iterator[Tensor]:
        """The weights, each once."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """Tensors that are no weights, each once."""
        ...

    def state_dict(self, *, keep_vars: bool) -> Mapping[str, Tensor]:
        """Weights and stored buffers by name; ``keep_vars``: the tensors themselves."""
        ...

    def to(self, where: torch.device | torch.dtype) -> CausalLM:
        """The model itself, moved or converted."""
        ...

    def eval(self) -> CausalLM:
        """The model itself, out of training."""
        ...

    def requires_grad_(self, wanted: bool) -> CausalLM:
        """The model itself, with or without gradients."""
        ...

    def set_attn_implementation(self, name: str) -> None:
        """Choose an attention function by name."""
        ...

    def register_forward_pre_hook(
        self,
        hook: Callable[[torch.nn.Module, tuple[Tensor, ...], ModelInputs], None],
        *,
        with_kwargs: bool,
    ) -> object:
        """Call ``hook`` before each forward."""
        ...
