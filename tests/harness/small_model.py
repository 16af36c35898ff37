"""A small model of transformers as a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvparity.subjects.hf import subject as subjects
from kvparity_contracts.subjects import Transformers

CONFIG = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def load(
    base: Path = Path(),
    *,
    seed: int = 1,
    execution: str = "float32",
    kv_cache: str = "",
    **model: Any,
) -> Any:
    contract = Transformers(kind="transformers", **{"attention": "eager", **model})
    return subjects.build(
        contract,
        execution=execution,
        kv_cache=kv_cache or execution,
        device=torch.device("cpu"),
        seed=seed,
        base=base,
    )
