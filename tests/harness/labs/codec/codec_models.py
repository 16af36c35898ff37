"""Tiny transformers configurations of every kind of layer plan."""

from __future__ import annotations

from typing import Any

from tiny_transformers import needs
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WINDOW = {"sliding_window": 8, "head_dim": 16}

TINY: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 2},
    "qwen2": {
        "num_hidden_layers": 3,
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
    },
    "qwen3": {"num_hidden_layers": 2, "head_dim": 16},
    "mistral": {"num_hidden_layers": 2, **_WINDOW},
    "gemma2": {"num_hidden_layers": 4, **_WINDOW},
    "gemma3_text": {"num_hidden_layers": 7, **_WINDOW},
    "gemma3n_text": {
        "num_hidden_layers": 10,
        "num_kv_shared_layers": 5,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 300,
        "laurel_rank": 4,
        **_WINDOW,
    },
    "gemma4_text": {
        "num_hidden_layers": 8,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 300,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "layer_types": [
            *["sliding_attention"] * 2,
            "full_attention",
            *["sliding_attention"] * 2,
            "full_attention",
            "sliding_attention",
            "full_attention",
        ],
        **_WINDOW,
    },
    "gpt_oss": {
        "num_hidden_layers": 4,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        **_WINDOW,
    },
    "qwen3_next": {
        "num_hidden_layers": 4,
        "head_dim": 16,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "cohere2": {"num_hidden_layers": 4, "sliding_window": 8},
    "phi3": {"num_hidden_layers": 2, "sliding_window": 8},
}


def tiny_settings(name: str) -> dict[str, Any]:
    """The keys of a tiny model of type ``name``, if the installed transformers has it."""
    needs(name)
    return {**_COMMON, **TINY[name]}


def tiny_config(name: str) -> Any:
    """A configuration object of model type ``name``."""
    settings = tiny_settings(name)
    return CONFIG_MAPPING[name](**settings)
