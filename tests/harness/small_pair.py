"""A small pair of kernels as a subject, from the functions of ``naive_pair`` or another file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvparity.subjects.pair.subject import AttentionSubject, build
from kvparity_contracts.subjects import Attention

HERE = Path(__file__).parent


PAIR = "naive_pair.py"


HEADS = {"query": 4, "kv": 2, "dim": 8}


def subject(
    decode: str = "decode",
    prefill: str = "prefill",
    *,
    module: str = PAIR,
    execution: str = "float32",
    kv_cache: str | None = None,
    heads: dict[str, int] | None = None,
    **more: Any,
) -> AttentionSubject:
    model = Attention.model_validate(
        {
            "kind": "attention",
            "prefill": f"{module}:{prefill}",
            "decode": f"{module}:{decode}",
            "heads": heads or HEADS,
        }
        | more
    )
    return build(
        model,
        execution=execution,
        kv_cache=kv_cache or execution,
        device=torch.device("cpu"),
        seed=1,
        base=HERE,
    )
