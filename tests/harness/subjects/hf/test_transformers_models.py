"""Anybody's model: keys that transformers takes, caches without keys, angles that follow length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_transformers import one_by_one, rows, tokens
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.run import verify
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import config_keys
from kvparity.subjects.hf.subject import build
from kvparity_contracts.consistency import faults
from kvparity_contracts.contract import Contract
from kvparity_contracts.loader import load as read
from kvparity_contracts.subjects import Transformers

BASE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GROUPED = {**BASE, "num_key_value_heads": 1}


def load(model_type: str, **config: Any) -> Any:
    return build(
        Transformers(
            kind="transformers", config={"model_type": model_type, **config}, attention="eager"
        ),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=3,
        base=Path(),
    )


def logits(subject: Any, length: int = 9) -> Tensor:
    session = subject.session([Member("m", length)], Layout())
    return torch.cat(list(session.forward((Span(0, 0, length, rows_from=0),), [tokens(length)])))


@pytest.mark.parametrize(
    ("model_type", "base", "key"),
    [
        ("gpt_neox", BASE, "rotary_pct"),
        ("glm", {**GROUPED, "pad_token_id": 0}, "partial_rotary_factor"),
    ],
)
def test_a_key_that_is_read_but_not_listed_is_taken(
    model_type: str, base: dict[str, Any], key: str
) -> None:
    # The same weights twice: what moves the logits is the key.
    quarter, half = (logits(load(model_type, **base, **{key: part})) for part in (0.25, 0.5))
    assert (quarter - half).abs().max() > 1e-3


def test_a_key_that_only_the_model_reads_is_taken() -> None:
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    subject = load("qwen3_moe", **GROUPED, **experts, head_dim=24)
    (shape,) = {p.shape for n, p in subject.model.named_parameters() if n.endswith("q_proj.weight")}
    assert shape == (2 * 24, 32)


@pytest.mark.parametrize(
    ("model_type", "key", "words"),
    [
        (
            "gpt_neox",
            "rotary_pcd",
            "config.rotary_pcd is not a setting of a gpt_neox model; .*_pct",
        ),
        ("llama", "rotary_pct", "config.rotary_pct is not a setting of a llama model"),
        ("gpt2", "partial_rotary_factor", "is not a setting of a gpt2 model"),
        ("qwen3_moe", "head_dims", "did you mean head_dim"),
    ],
)
def test_a_key_that_nobody_reads_is_refused(model_type: str, key: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_keys.check(model_type, {key: 1})


@pytest.mark.parametrize("model_type", ["mamba", "mamba2"])
@pytest.mark.filterwarnings("ignore")  # transformers' own, of kernels that are not installed
def test_a_model_that_keeps_states_has_no_kv_cache(model_type: str) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    heads = {"num_heads": 4, "head_dim": 8, "n_groups": 1} if model_type == "mamba2" else {}
    with pytest.raises(
        UnsupportedError, match=r"has no KV cache .*; kvparity verifies models that"
    ):
        load(model_type, **sizes, **heads)


ROPE = {"rope_type": "dynamic", "factor": 4.0}


def contract(scaling: dict[str, Any] | None, key: str = "rope_scaling") -> Contract:
    config = {"model_type": "llama", **GROUPED, "max_position_embeddings": 16}
    return Contract.model_validate(
        {
            "version": 1,
            "name": "long",
            "subject": {
                "kind": "transformers",
                "attention": "eager",
                "config": config | ({key: scaling} if scaling else {}),
            },
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "beyond", "prompt_tokens": [13], "generate": 9}],
            "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
        }
    )


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_dynamic_angles_can_be_asked_for_beyond_the_positions(key: str) -> None:
    assert list(faults(contract({**ROPE}, key))) == []
    nested = {"full_attention": {**ROPE}, "sliding_attention": {"rope_type": "default"}}
    assert list(faults(contract(nested, key))) == []
    with pytest.raises(ValueError, match="found 13 prompt tokens, 22 with the 9 generated"):
        contract({"rope_type": "linear", "factor": 4.0}, key)


def apart(scaling: dict[str, Any] | None) -> float:
    """How far decode is from prefill at worst, 22 tokens of a model of 16 positions."""
    more = {"rope_scaling": scaling} if scaling else {}
    subject = load("llama", **GROUPED | {"max_position_embeddings": 16}, **more)
    one = rows(subject, [22], one_by_one(22, 1), Layout())[0]
    whole = rows(subject, [22], one_by_one(22, 22), Layout())[0]
    return float((one.log_softmax(-1) - whole.log_softmax(-1)).abs().max())


def test_angles_that_follow_the_length_part_decode_from_prefill() -> None:
    """What a cache holds was rotated for the length that the sequence had then."""
    assert apart({**ROPE}) > 1e-2
    assert apart(None) < 1e-4  # the same weights with angles that stay


def test_the_positions_of_dynamic_angles_are_no_limit() -> None:
    small = GROUPED | {"max_position_embeddings": 16}
    assert load("llama", **small, rope_scaling={**ROPE}).max_positions > 1000
    assert load("llama", **small).max_positions == 16


def test_a_contract_with_dynamic_angles_differs(tmp_path: Path) -> None:
    whole = contract({**ROPE}).model_dump(mode="json", exclude_unset=True)
    file = tmp_path / "long.yaml"
    file.write_text(json.dumps({**whole, "controls": ["stale-slot"]}))
    report = verify.verify(
        read(file),
        device="cpu",
        folder=tmp_path / "run",
        jobs=1,
        resume=False,
        command="kvparity verify long.yaml",
        progress=lambda done, total, what: None,
    ).document()
    (case,) = report["checks"][0]["cases"]
    assert (report["verdict"], case["verdict"]) == ("differs", "differs")
    assert case["max_abs_dlogp"] > 1e-3
