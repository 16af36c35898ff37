"""Small models of transformers, by name."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "attn_implementation": "sdpa",  # the eager one has a float32 softmax in every dtype
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Every switch that the forward pass has, at least once.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-head_dim": ("Llama", {"head_dim": 16, "tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3-window": (
        "Qwen3",
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "qwen3-biases": (
        "Qwen3",
        {"head_dim": 24, "attention_bias": True, "tie_word_embeddings": True},
    ),
}
OLD = transformers.__version__ < "5"


def _named(switches: dict[str, Any]) -> dict[str, Any]:
    """The switches under the names that this transformers has for them."""
    if not OLD or "rope_parameters" not in switches:
        return switches
    scaling = dict(switches["rope_parameters"])
    theta = scaling.pop("rope_theta")
    plain = scaling["rope_type"] == "default"
    rope = {"rope_theta": theta, "rope_scaling": None if plain else scaling}
    return {name: x for name, x in switches.items() if name != "rope_parameters"} | rope


def hugging_face(name: str) -> Any:
    """A random transformers model in float64, every parameter away from its default."""
    family, switches = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**SMALL | _named(switches))
    model = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            wide = 1.0 / math.sqrt(parameter.shape[-1]) if parameter.dim() == 2 else 0.3
            parameter.copy_(noise * wide + (1.0 if "norm" in key else 0.0))
    return model
