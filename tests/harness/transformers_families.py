"""Configurations of tiny transformers models, one of each kind of cache and attention.

Their windows are ``WINDOW`` tokens; weights are drawn ten times as wide as transformers would, so
that a key more or less shows in every row.
"""

from __future__ import annotations

from typing import Any

WINDOW = 8
_BASE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BOTH = ["sliding_attention", "full_attention"]
_SHARED = {
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
    "layer_types": _BOTH * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 128,
    "hidden_size_per_layer_input": 8,
}


def _config(model_type: str, **more: Any) -> dict[str, Any]:
    config = {"model_type": model_type, **_BASE, **more}
    return {key: value for key, value in config.items() if value is not None}


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _config("llama"),
    "qwen2": _config(
        "qwen2", head_dim=None, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": _config("qwen3"),
    "mistral": _config("mistral", sliding_window=WINDOW),
    "phi3": _config("phi3", head_dim=None, sliding_window=WINDOW),
    "cohere2": _config("cohere2", sliding_window=WINDOW, layer_types=_BOTH),
    "olmo3": _config("olmo3", head_dim=None, sliding_window=WINDOW, layer_types=_BOTH),
    "gemma2": _config(
        "gemma2", sliding_window=WINDOW, query_pre_attn_scalar=16, attn_logit_softcapping=4.0
    ),
    "gemma3": _config(
        "gemma3_text", sliding_window=WINDOW, query_pre_attn_scalar=16, layer_types=_BOTH
    ),
    "gemma3n": _config(
        "gemma3n_text",
        **_SHARED,
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * 4,
    ),
    "gemma4": _config("gemma4_text", **_SHARED, global_head_dim=32),
    "gpt_oss": _config(
        "gpt_oss",
        sliding_window=WINDOW,
        layer_types=_BOTH,
        num_local_experts=2,
        num_experts_per_tok=1,
        experts_implementation="batched_mm",
        max_position_embeddings=131072,  # the default that its yarn factor belongs to
    ),
    "llama4": _config(
        "llama4_text",
        attention_chunk_size=WINDOW,
        intermediate_size_mlp=64,
        num_local_experts=2,
        layer_types=["chunked_attention", "full_attention"],
        no_rope_layers=[1, 0],
        moe_layers=[],
    ),
}
"""Family name -> transformers configuration with ``model_type``."""

_LONG = {"rope_theta": 10000.0, "original_max_position_embeddings": 16, "factor": 16.0}
PARTING: dict[str, dict[str, Any]] = {
    "llama, dynamic RoPE": _config(
        "llama",
        max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
    "phi3, longrope": _config(
        "phi3",
        head_dim=None,
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [2.0 + i for i in range(8)],
            **_LONG,
        },
    ),
    "moshi": _config(
        "moshi", sliding_window=WINDOW, ffn_dim=64, intermediate_size=None, bos_token_id=None
    ),
    "inkling": _config("inkling_text", layer_types=["hybrid_sliding", "hybrid"]),
}
"""Families whose paths part by more than rounding in transformers 5.23."""

_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
TYPES: dict[str, dict[str, Any]] = {
    **{name: FAMILIES[name] for name in ("llama", "qwen3", "mistral", "gemma3")},
    "mixtral": _config("mixtral", num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": {k: v for k, v in FAMILIES["gpt_oss"].items() if k != "experts_implementation"},
    "gpt_neox": _config("gpt_neox", head_dim=None, num_key_value_heads=None, rotary_pct=0.25),
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 128,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "bloom": {
        "model_type": "bloom",
        "vocab_size": 128,
        "hidden_size": 64,
        "n_layer": 2,
        "n_head": 4,
        "initializer_range": 0.2,
    },
    "phi3": FAMILIES["phi3"],
    "deepseek_v3": _config(
        "deepseek_v3",
        **_EXPERTS,
        head_dim=None,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=16,
        q_lora_rank=32,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=16,
    ),
    "qwen3_next": _config(
        "qwen3_next",
        **_EXPERTS,
        num_experts=4,
        shared_expert_intermediate_size=32,
        num_hidden_layers=4,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
    ),
    "qwen3_moe": _config("qwen3_moe", **_EXPERTS, num_experts=4),
    "glm": _config("glm", partial_rotary_factor=0.5),
    "xglm": {
        "model_type": "xglm",
        "vocab_size": 128,
        "d_model": 64,
        "ffn_dim": 64,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 256,
        "init_std": 0.2,
    },
    "mamba": {
        "model_type": "mamba",
        "vocab_size": 128,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "state_size": 8,
    },
    "llama, dynamic RoPE": _config(
        "llama", max_position_embeddings=16, rope_scaling={"rope_type": "dynamic", "factor": 4.0}
    ),
}
"""Model types that people verify, and some whose code is unlike that of the others."""

NO_SDPA = ("gemma2", "gpt_oss")
"""Families whose softcap or sinks transformers' own sdpa cannot do."""
