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
    """A configuration; what only some models have is asked for with ``getattr``.

    ``get_text_config(decoder=True)`` is that of the language model, which may be the whole.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    get_text_config: Callable[..., ModelConfig]
    to_dict: Callable[[], JsonObject]


class AttentionLayer(Protocol):
    """The module that calls an attention function. ``layer_idx``: its layer of the model."""

    layer_idx: int


class CacheLayer(Protocol):
    """A layer that stores: keys and values ``[B, kv_heads, slots, head_dim]``, or None so far.

    ``sliding_window``: of a dynamic sliding layer; ``max_cache_len``: the slots of a static one.
    ``crop`` drops as many of the newest columns as a negative number says.
    """

    keys: Tensor
    values: Tensor
    is_sliding: bool
    cumulative_length: int
    sliding_window: int
    max_cache_len: int
    crop: Callable[[int], None]


class Cache(Protocol):
    """A cache as a model uses it. ``layers``: of some caches alone; ``CacheLayer`` if they store.

    ``get_seq_length``: the columns that it was given; ``crop`` is that of its layers.
    """

    layers: list[object]
    update: Callable[..., tuple[Tensor, Tensor]]
    get_seq_length: Callable[[], int]
    reset: Callable[[], None]
    crop: Callable[[int], None]


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
    """The settings of ``generate()``; ``to_diff_dict``: those that differ from the defaults."""

    to_diff_dict: Callable[[], JsonObject]


class CausalLM(Protocol):
    """A ``PreTrainedModel`` with a language model's head, as far as it is used.

    ``generate`` returns int64 ``[B, length]``, the given ids first.
    """

    config: ModelConfig
    generation_config: GenerationSettings
    dtype: torch.dtype
    device: torch.device
    __call__: Callable[..., ModelOutput]
    forward: Callable[..., ModelOutput]
    generate: Callable[..., Tensor]
    parameters: Callable[[], Iterator[Tensor]]
    buffers: Callable[[], Iterator[Tensor]]
    state_dict: Callable[..., Mapping[str, Tensor]]
    to: Callable[[torch.device | torch.dtype], CausalLM]
    eval: Callable[[], CausalLM]
    requires_grad_: Callable[[bool], CausalLM]
    set_attn_implementation: Callable[[str], None]
    register_forward_pre_hook: Callable[..., object]
    named_modules: Callable[[], Iterator[tuple[str, torch.nn.Module]]]
    named_parameters: Callable[..., Iterator[tuple[str, torch.nn.Parameter]]]
    named_buffers: Callable[..., Iterator[tuple[str, Tensor]]]
