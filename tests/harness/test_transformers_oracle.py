"""The float64 twin of a transformers model: of experts, too, and in words where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_transformers import tokens

from kvparity.hf.oracle import twin
from kvparity.schedule import Layout, Member, Span
from kvparity.subject import OracleError
from kvparity.subjects.transformers import build
from kvparity_contracts.subjects import Transformers

MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_local_experts": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
XGLM = {
    "model_type": "xglm",
    "vocab_size": 512,
    "d_model": 32,
    "ffn_dim": 32,
    "num_layers": 1,
    "attention_heads": 2,
    "max_position_embeddings": 64,
}


def load(config: dict[str, Any]) -> Any:
    return build(
        Transformers(kind="transformers", config=config, attention="eager"),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=3,
        base=Path(),
    )


def test_a_mixture_of_experts_is_held_against_its_eager_experts() -> None:
    subject, ids = load(MIXTRAL), tokens(9)
    session = subject.session([Member("m", 9)], Layout())
    (rows,) = session.forward((Span(0, 0, 9, rows_from=0),), [ids])
    wanted = subject.oracle(Member("m", 9), ids, range(9))
    assert wanted.dtype == torch.float64
    assert 0 < (rows - wanted).abs().max() < 1e-4 < rows.abs().max()
    # What is under verification keeps the experts that its user would have.
    if hasattr(subject.model, "get_experts_implementation"):
        assert subject.model.get_experts_implementation() != {"": "eager"}
        assert twin(subject.model).get_experts_implementation() == {"": "eager"}


def test_a_model_that_is_no_model_in_float64_says_so() -> None:
    subject = load(XGLM)
    with pytest.raises(OracleError, match=r"XGLMForCausalLM does not compute in float64.*Error: "):
        subject.oracle(Member("m", 9), tokens(9), range(9))
